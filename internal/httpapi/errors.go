package httpapi

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/internal/problem"
)

// statusOf is the one table from the kind of a problem to the HTTP status.
func statusOf(kind problem.Kind) int {
	switch kind {
	case problem.Invalid:
		return http.StatusBadRequest
	case problem.NotFound:
		return http.StatusNotFound
	case problem.Conflict, problem.Diverged:
		return http.StatusConflict
	case problem.Unauthorised:
		return http.StatusForbidden
	case problem.Incompatible:
		return http.StatusUnprocessableEntity
	case problem.Transient, problem.Cancelled:
		return http.StatusServiceUnavailable
	case problem.Resource:
		return http.StatusInsufficientStorage
	}
	return http.StatusInternalServerError
}

// problemType is the media type of every answer that is not the one asked for (RFC 9457).
const problemType = "application/problem+json"

// failure is an error on its way out.
type failure api.Failure

// Error implements error.
func (f *failure) Error() string { return f.Text }

// GetStatus implements huma.StatusError.
func (f *failure) GetStatus() int { return f.Status }

// ContentType implements huma.ContentTypeFilter.
func (f *failure) ContentType(string) string { return problemType }

func failed(err error) *failure {
	p := problem.As(err)
	return failureOf(statusOf(p.Kind), api.Error{Kind: string(p.Kind), Code: p.Code, Subject: p.Subject, Text: p.Error(), Hint: p.Hint})
}

// failureOf adds to an error what a problem document has.
func failureOf(status int, e api.Error) *failure {
	f := &failure{Type: "urn:twinspan:problem:" + e.Code, Title: http.StatusText(status), Status: status, Detail: e.Text,
		Kind: e.Kind, Code: e.Code, Subject: e.Subject, Text: e.Text, Hint: e.Hint}
	if entry, ok := problem.Describe(e.Code); ok {
		f.Title = entry.Title
	}
	return f
}

// oneShape replaces the framework's own errors (a body that is no JSON, a field
// that does not validate) by ours. It quotes places and rules, never values: a
// token could be among them.
func oneShape(ctx huma.Context, _ string, v any) (any, error) {
	model, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	ctx.SetHeader("Content-Type", problemType)
	text := model.Detail
	for _, d := range model.Errors {
		text += fmt.Sprintf("; %s: %s", strings.TrimPrefix(d.Location, "body."), d.Message)
	}
	e := api.Error{Kind: string(problem.Invalid), Code: "request_invalid", Text: text, Hint: "the fields and their rules are in /docs and /openapi.json"}
	if model.Status >= http.StatusInternalServerError {
		e.Kind, e.Code, e.Hint = string(problem.Internal), "internal", ""
	}
	return failureOf(model.Status, e), nil
}
