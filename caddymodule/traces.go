package caddymodule

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// tokenFor is a session's token for a request that may wait for one. Where
// Caddy's `tracing` traces the request, the wait is a span of its own. The
// token request itself isn't part of the trace: it is the session's, made once
// for all who wait, and its headers tell the authorization server nothing of
// them.
func tokenFor(ctx context.Context, s *oauth.Session, waiters int) (*oauth.Token, error) {
	parent := trace.SpanFromContext(ctx)
	if !parent.IsRecording() || s.Current() != nil {
		return s.TokenAmong(ctx, waiters)
	}
	ctx, span := parent.TracerProvider().Tracer("caddy-bearer").Start(ctx, "bearer.token",
		trace.WithAttributes(attribute.String("caddy.bearer.account", s.Key().Account)))
	defer span.End()
	token, err := s.TokenAmong(ctx, waiters)
	if err != nil {
		code := tokenProblem(err, time.Now()).Code
		span.SetAttributes(attribute.String("caddy.bearer.code", code))
		span.SetStatus(codes.Error, code)
	}
	return token, err
}
