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

// failure is an error on its way out, in the shape of api.Error.
type failure api.Error

// Error implements error.
func (f *failure) Error() string { return f.Text }

// GetStatus implements huma.StatusError.
func (f *failure) GetStatus() int { return f.Status }

func failed(err error) *failure {
	p := problem.As(err)
	return &failure{
		Status:  statusOf(p.Kind),
		Kind:    string(p.Kind),
		Code:    p.Code,
		Subject: p.Subject,
		Text:    p.Error(),
		Hint:    p.Hint,
	}
}

// oneShape replaces the framework's own errors (a body that is no JSON, a field
// that does not validate) by ours. It quotes places and rules, never values: a
// token could be among them.
func oneShape(ctx huma.Context, _ string, v any) (any, error) {
	model, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	ctx.SetHeader("Content-Type", "application/json")
	text := model.Detail
	for _, d := range model.Errors {
		text += fmt.Sprintf("; %s: %s", strings.TrimPrefix(d.Location, "body."), d.Message)
	}
	e := &failure{Status: model.Status, Kind: string(problem.Invalid), Code: "request_invalid", Text: text,
		Hint: "the fields and their rules are in /openapi.json"}
	if model.Status >= http.StatusInternalServerError {
		e.Kind, e.Code, e.Hint = string(problem.Internal), "internal", ""
	}
	return e, nil
}
