// Package tracing shows the way of an event in OpenTelemetry: a span for the PBX's request, and one for each
// attempt at a target, in the trace that the PBX began or in one of its own. It is off unless OpenTelemetry's
// own environment variables say where traces go.
//
// It must not know what an event is.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const serviceName = "pbxhook-receiver"

// Tracer makes spans. A nil one makes none.
type Tracer struct {
	tracer   trace.Tracer
	provider *sdktrace.TracerProvider
}

// wanted is whether the environment says where traces go (OpenTelemetry: environment variables).
func wanted() bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") {
		return false
	}
	switch exporter := os.Getenv("OTEL_TRACES_EXPORTER"); exporter {
	case "otlp":
		return true
	case "":
		return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
	}
	return false
}

// New makes the tracer that the environment asks for; nil: none. It wants OTLP over HTTP.
func New(ctx context.Context, log *slog.Logger) (*Tracer, error) {
	if !wanted() {
		return nil, nil
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if protocol := os.Getenv(name); protocol != "" && protocol != "http/protobuf" {
			return nil, fmt.Errorf("%s: expected http/protobuf (port 4318 of a collector), got %q", name, protocol)
		}
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("make the exporter of traces: %w", err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", serviceName)), resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		return nil, fmt.Errorf("describe this service to OpenTelemetry: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces could not be sent", "error", err) }))
	return With(sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))), nil
}

// With makes a tracer of a provider.
func With(provider *sdktrace.TracerProvider) *Tracer {
	return &Tracer{tracer: provider.Tracer("github.com/pbxhook/pbxhook/receiver"), provider: provider}
}

// Close sends what waits.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	if err := t.provider.Shutdown(ctx); err != nil {
		return fmt.Errorf("send the last traces: %w", err)
	}
	return nil
}

var propagator = propagation.TraceContext{}

// Span is one that is under way; nil: none.
type Span struct{ span trace.Span }

// Received begins the span of a PBX's request; traceparent and tracestate are its headers.
func (t *Tracer) Received(ctx context.Context, name, traceparent, tracestate string, attributes ...attribute.KeyValue) *Span {
	return t.start(ctx, trace.SpanKindServer, name, traceparent, tracestate, attributes)
}

// Attempted begins the span of a request to a target, whose parent is a traceparent.
func (t *Tracer) Attempted(ctx context.Context, name, traceparent string, attributes ...attribute.KeyValue) *Span {
	return t.start(ctx, trace.SpanKindClient, name, traceparent, "", attributes)
}

func (t *Tracer) start(ctx context.Context, kind trace.SpanKind, name, traceparent, tracestate string, attributes []attribute.KeyValue) *Span {
	if t == nil {
		return nil
	}
	ctx = propagator.Extract(ctx, propagation.MapCarrier{"traceparent": traceparent, "tracestate": tracestate})
	_, span := t.tracer.Start(ctx, name, trace.WithSpanKind(kind), trace.WithAttributes(attributes...))
	return &Span{span}
}

// Traceparent is what the next request carries.
func (s *Span) Traceparent() string {
	if s == nil {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagator.Inject(trace.ContextWithSpan(context.Background(), s.span), carrier)
	return carrier["traceparent"]
}

// Sampled is the id of its trace, where that is kept.
func (s *Span) Sampled() string {
	if s == nil || !s.span.SpanContext().IsSampled() {
		return ""
	}
	return s.span.SpanContext().TraceID().String()
}

// End ends it; failure says what went wrong, or nothing.
func (s *Span) End(failure string, attributes ...attribute.KeyValue) {
	if s == nil {
		return
	}
	s.span.SetAttributes(attributes...)
	if failure != "" {
		s.span.SetStatus(codes.Error, failure)
	}
	s.span.End()
}
