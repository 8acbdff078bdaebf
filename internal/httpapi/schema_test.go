package httpapi

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/twinspan/twinspan/api"
	"github.com/twinspan/twinspan/client"
	"github.com/twinspan/twinspan/internal/problem"
)

// fits compares an answer with what the description says of it.
func fits(t *testing.T, described *huma.OpenAPI, pattern string, answer *httptest.ResponseRecorder) {
	t.Helper()
	method, path, _ := strings.Cut(pattern, " ")
	item := described.Paths[path]
	if item == nil {
		t.Errorf("%s is not described", pattern)
		return
	}
	op := map[string]*huma.Operation{"GET": item.Get, "POST": item.Post, "PATCH": item.Patch, "PUT": item.Put, "DELETE": item.Delete}[method]
	response := op.Responses[fmt.Sprint(answer.Code)]
	if response == nil {
		response = op.Responses["default"]
	}
	if len(response.Content) == 0 {
		if answer.Body.Len() > 0 {
			t.Errorf("%s answers %d with a body", pattern, answer.Code)
		}
		return
	}
	media, _, _ := strings.Cut(answer.Header().Get("Content-Type"), ";")
	content := response.Content[media]
	if content == nil {
		t.Errorf("%s answers %d as %q, not as one of %v", pattern, answer.Code, media, slices.Sorted(maps.Keys(response.Content)))
		return
	}
	var body any
	if err := json.Unmarshal(answer.Body.Bytes(), &body); err != nil {
		t.Errorf("%s: %v", pattern, err)
		return
	}
	result := &huma.ValidateResult{}
	huma.Validate(described.Components.Schemas, content.Schema, huma.NewPathBuffer(nil, 0), huma.ModeReadFromServer, body, result)
	for _, err := range result.Errors {
		t.Errorf("%s: the answer does not fit its description: %v\n%s", pattern, err, answer.Body)
	}
}

// An error is a problem document as its description says, with our members beside.
func TestErrorsAreProblemDocuments(t *testing.T) {
	agent := sample()
	agent.Refusals = map[string]api.Error{"Link": {Kind: string(problem.NotFound), Code: "link_unknown", Subject: "x", Text: "there is no link x", Hint: "link list"}}
	mux := http.NewServeMux()
	described := newAPI(mux, agent, func(context.Context, string, error) {})
	for _, c := range []struct{ path, code string }{{"/v1/links/x", "link_unknown"}, {"/v1/links?limit=none", "request_invalid"}, {"/v1/peers?after=zzz&limit=-1", "request_invalid"}} {
		answer := httptest.NewRecorder()
		r := httptest.NewRequest("GET", c.path, nil)
		mux.ServeHTTP(answer, r)
		_, pattern := mux.Handler(r)
		fits(t, described.OpenAPI(), pattern, answer)
		var got api.Failure
		if err := json.Unmarshal(answer.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if got.Status != answer.Code || got.Code != c.code || got.Type != "urn:twinspan:problem:"+c.code || got.Title == "" || got.Detail != got.Text || got.Text == "" {
			t.Errorf("%s: %+v", c.path, got)
		}
	}
}

func TestListsComeInPages(t *testing.T) {
	agent := sample()
	agent.Views = map[string][]api.Link{}
	var want []string
	for i := range 7 {
		name := fmt.Sprintf("link%d", i)
		agent.Views[name], want = []api.Link{{Name: name, Role: api.Primary, Phase: api.Replicating, Health: api.Healthy, Mode: api.Async, Peer: api.LinkPeer{Role: api.Secondary}}}, append(want, name)
	}
	mux := http.NewServeMux()
	described := newAPI(mux, agent, func(context.Context, string, error) {})
	ask := func(path string) (names []string, next string) {
		t.Helper()
		answer := httptest.NewRecorder()
		mux.ServeHTTP(answer, httptest.NewRequest("GET", path, nil))
		fits(t, described.OpenAPI(), "GET /v1/links", answer)
		var all []api.Link
		if err := json.Unmarshal(answer.Body.Bytes(), &all); err != nil {
			t.Fatal(err)
		}
		for _, l := range all {
			names = append(names, l.Name)
		}
		next, is := strings.CutSuffix(answer.Header().Get("Link"), `>; rel="next"`)
		if is != (next != "") {
			t.Errorf("the next page is %q", next)
		}
		return names, strings.TrimPrefix(next, "<")
	}
	if all, next := ask("/v1/links"); !slices.Equal(all, want) || next != "" {
		t.Errorf("all: %q, %q", all, next)
	}
	var got []string
	pages := 0
	for path := "/v1/links?limit=3"; path != ""; pages++ {
		part, next := ask(path)
		got, path = append(got, part...), next
		if pages == 0 { // what goes between two pages moves nothing
			delete(agent.Views, "link2")
		}
	}
	if !slices.Equal(got, want) || pages != 3 {
		t.Errorf("%d pages: %q", pages, got)
	}
	// Of a list in another order a page is gone with the element that it was named by.
	_, err := behind([]string{"c", "a"}, func(s string) string { return s }, "b")
	if problem.CodeOf(err) != "page_gone" {
		t.Errorf("%v", err)
	}
}

// The page is whole by itself: no script, nothing from elsewhere, and all operations.
func TestThePageOfTheDescription(t *testing.T) {
	s := serve(t, sample(), true)
	answer, err := insecure.Get("https://" + s.addr + "/docs")
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if policy := answer.Header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy %q", policy)
	}
	_, _, text := raw(t, s, "GET", "/docs", "")
	for _, never := range []string{"<script", "http://", "https://", "@import", "url(", " style=", "1.2.3"} {
		if strings.Contains(text, never) {
			t.Errorf("the page has %q", never)
		}
	}
	for _, op := range operations(t, []byte(document(t, s))) {
		if !strings.Contains(text, "<code>"+op+"</code>") {
			t.Errorf("the page lacks %s", op)
		}
	}
	for _, part := range strings.Split(text, `href="#`)[1:] {
		id, _, _ := strings.Cut(part, `"`)
		if !strings.Contains(text, `id="`+id+`"`) {
			t.Errorf("a link to #%s leads nowhere", id)
		}
	}
}

func document(t *testing.T, s *served) string {
	t.Helper()
	_, _, text := raw(t, s, "GET", "/openapi.json", "")
	return text
}

// What programs rely on since a release is not taken from them. The description of each
// release that is still to be kept lies in api/openapi.VERSION.json.
func TestNothingThatWasReleasedIsBroken(t *testing.T) {
	mux := http.NewServeMux()
	now, err := json.Marshal(newAPI(mux, sample(), func(context.Context, string, error) {}).OpenAPI())
	if err != nil {
		t.Fatal(err)
	}
	released, err := filepath.Glob("../../api/openapi.v*.json")
	if err != nil || len(released) == 0 {
		t.Fatalf("no description of a release: %v", err)
	}
	for _, file := range released {
		before, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, what := range broken(t, before, now) {
			t.Errorf("since %s: %s", filepath.Base(file), what)
		}
	}
}

// A client that reads the list of a release and the client of today read the same errors.
func TestTheClientReadsProblemDocuments(t *testing.T) {
	agent := sample()
	agent.Refusals = map[string]api.Error{"Suspend": {Kind: string(problem.Conflict), Code: "phase_refuses", Text: "no", Hint: "wait"}}
	s := serve(t, agent, false)
	_, err := dial(t, client.Dial{Socket: s.dir.Socket()}).Suspend(t.Context(), "sales")
	wantError(t, err, http.StatusConflict, "phase_refuses")
}

// TestTheReferenceIsWritten compares docs/rest.md with the description.
func TestTheReferenceIsWritten(t *testing.T) {
	described := newAPI(http.NewServeMux(), sample(), func(context.Context, string, error) {}).OpenAPI()
	var page strings.Builder
	page.WriteString("# The REST interface\n\n<!-- written by make generated from the description of the interface -->\n\nAn agent's page `/docs` has every field and rule, [openapi.json](../api/openapi.json) the same for programs; docs/monitoring.md says how it is reached. Errors are problem documents of type `Failure`.\n")
	for _, group := range viewOf(described).Groups {
		fmt.Fprintf(&page, "\n## %s\n\n| request | what it does | takes | gives |\n|---|---|---|---|\n", group.Name)
		for _, op := range group.Operations {
			takes := op.Takes.Text
			for _, p := range op.Parameters {
				if p.Where == "query" {
					takes = strings.TrimPrefix(takes+", `"+p.Name+"`", ", ")
				}
			}
			fmt.Fprintf(&page, "| `%s %s` | %s | %s | %s |\n", op.Method, op.Path, op.Summary, takes, op.Gives.Text)
		}
	}
	reference := filepath.Join("..", "..", "docs", "rest.md")
	if *update {
		if err := os.WriteFile(reference, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if text, err := os.ReadFile(reference); err != nil || string(text) != page.String() {
		t.Errorf("docs/rest.md is stale (%v): run make generated", err)
	}
}
