package httpapi

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinspan/twinspan/internal/problem"
)

// part asks for a part of a list.
type part struct {
	Limit int    `query:"limit" minimum:"0" maximum:"1000" doc:"The most elements of the answer; 0 for all. Where there are more, the header Link names the next page"`
	After string `query:"after" maxLength:"200" doc:"Elements behind this one: the header Link of the page before has it"`
}

// page is a part of a list. Next is a link in the sense of RFC 8288.
type page[T any] struct {
	Next string `header:"Link" doc:"The next page, as <path>; rel=\"next\"; missing on the last one"`
	Body []T    `nullable:"false"`
}

// addList registers an operation that answers with a list. The elements have keys of their
// own, by which pages are told apart: what comes or goes between two pages moves nothing
// else from one to the other.
func addList[T any](r *routes, tag, path, id, summary string, key func(T) string, all func(context.Context) ([]T, error)) {
	op := r.operation(tag, http.MethodGet, path, id, summary)
	huma.Register(r.api, op, func(ctx context.Context, in *part) (*page[T], error) {
		elements, err := all(ctx)
		noteOperation(ctx, id, in, err)
		if err == nil && in.After != "" {
			elements, err = behind(elements, key, in.After)
		}
		if err != nil {
			if problem.KindOf(err) == problem.Internal {
				r.failed(ctx, id, err)
			}
			return nil, failed(err)
		}
		out := &page[T]{Body: list(elements)}
		if in.Limit > 0 && len(elements) > in.Limit {
			out.Body = elements[:in.Limit]
			next := url.Values{"limit": {strconv.Itoa(in.Limit)}, "after": {key(out.Body[in.Limit-1])}}
			out.Next = "<" + path + "?" + next.Encode() + `>; rel="next"`
		}
		return out, nil
	})
}

// behind are the elements behind the one with a key. Where that is gone, it is those that
// would stand behind it in a list that is sorted by its keys.
func behind[T any](elements []T, key func(T) string, after string) ([]T, error) {
	at := slices.IndexFunc(elements, func(e T) bool { return key(e) == after })
	if at >= 0 {
		return elements[at+1:], nil
	}
	keys := make([]string, len(elements))
	for i, e := range elements {
		keys[i] = key(e)
	}
	if !slices.IsSorted(keys) {
		return nil, problem.New(problem.NotFound, "page_gone", "the element behind which the next page begins is not listed any more").On(after).
			WithHint("begin with the first page again")
	}
	at, _ = slices.BinarySearch(keys, after)
	return elements[at:], nil
}
