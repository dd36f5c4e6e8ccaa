# The one image: the operator and the receiver, static, as a user without rights.
#   docker build .                  builds everything
#   --target local                  takes dist/operator and dist/receiver, and needs no base image

FROM scratch AS local
COPY dist/operator dist/receiver /
USER 65532:65532
ENTRYPOINT ["/operator"]

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
ARG TARGETOS TARGETARCH
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api api
COPY cmd cmd
COPY config/crd config/crd
COPY controllers controllers
COPY receiver receiver
RUN mkdir /out && for command in operator receiver; do \
      CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags "-s -w" -o /out/$command ./cmd/$command || exit 1; \
    done

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/operator /out/receiver /
USER 65532:65532
ENTRYPOINT ["/operator"]
