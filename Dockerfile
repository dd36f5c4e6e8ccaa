# The one image: the operator and the receiver, static, as a user without rights.
#   docker build .                  builds everything
#   --target local                  takes the binaries in dist/OS/ARCH, and needs no base image

FROM scratch AS local
ARG TARGETPLATFORM
COPY dist/${TARGETPLATFORM}/operator dist/${TARGETPLATFORM}/receiver /
USER 65532:65532
ENTRYPOINT ["/operator"]

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG TARGETPLATFORM
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api api
COPY cmd cmd
COPY config/crd config/crd
COPY controllers controllers
COPY hack/binaries hack/binaries
COPY receiver receiver
RUN hack/binaries $TARGETPLATFORM /out

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/operator /out/receiver /
USER 65532:65532
ENTRYPOINT ["/operator"]
