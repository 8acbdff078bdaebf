package httpapi

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

//go:embed docs.html
var docsText string

var docsTemplate = template.Must(template.New("docs").Parse(docsText))

// docsPolicy lets the page load nothing and run no script; its one style is known by its digest.
func docsPolicy() string {
	_, style, _ := strings.Cut(docsText, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// The page of the description, as the template has it.
type (
	docsView struct {
		Title, Version, About string
		Groups                []docsGroup
		Types                 []docsType
	}
	docsGroup struct {
		Name       string
		Operations []docsOperation
	}
	docsOperation struct {
		ID, Method, Path, Summary string
		Parameters                []docsField
		Takes, Gives              docsRef // of bodies
		Status                    string
	}
	docsType struct {
		Name   string
		Fields []docsField
	}
	docsField struct {
		Name, Where, About, Rules string
		Required                  bool
		Type                      docsRef
	}
	// docsRef names a type; Link is that of one which the page describes.
	docsRef struct{ Text, Link string }
)

// docsPage describes the interface for people. It is made once: it says nothing of the agent.
func docsPage(described *huma.OpenAPI) http.Handler {
	var text bytes.Buffer
	if err := docsTemplate.Execute(&text, viewOf(described)); err != nil {
		panic(err) // a defect of the template, which the tests meet
	}
	policy := docsPolicy()
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		w.Write(text.Bytes())
	})
}

func viewOf(described *huma.OpenAPI) docsView {
	v := docsView{Title: described.Info.Title, Version: described.Info.Version, About: described.Info.Description}
	for _, tag := range described.Tags {
		group := docsGroup{Name: tag.Name}
		for _, path := range slices.Sorted(maps.Keys(described.Paths)) {
			item := described.Paths[path]
			for _, op := range []*huma.Operation{item.Get, item.Post, item.Patch, item.Put, item.Delete} {
				if op != nil && slices.Contains(op.Tags, tag.Name) {
					group.Operations = append(group.Operations, operationView(op))
				}
			}
		}
		v.Groups = append(v.Groups, group)
	}
	schemas := described.Components.Schemas.Map()
	for _, name := range slices.Sorted(maps.Keys(schemas)) {
		t := docsType{Name: name}
		for _, field := range slices.Sorted(maps.Keys(schemas[name].Properties)) {
			s := schemas[name].Properties[field]
			t.Fields = append(t.Fields, docsField{Name: field, About: s.Description, Rules: rules(s), Required: slices.Contains(schemas[name].Required, field), Type: typeOf(s)})
		}
		v.Types = append(v.Types, t)
	}
	return v
}

func operationView(op *huma.Operation) docsOperation {
	out := docsOperation{ID: op.OperationID, Method: op.Method, Path: op.Path, Summary: op.Summary}
	for _, p := range op.Parameters {
		out.Parameters = append(out.Parameters, docsField{Name: p.Name, Where: p.In, About: p.Description, Required: p.Required, Type: typeOf(p.Schema), Rules: rules(p.Schema)})
	}
	if op.RequestBody != nil {
		out.Takes = bodyOf(op.RequestBody.Content)
	}
	for _, status := range []string{"200", "204"} {
		if r := op.Responses[status]; r != nil {
			out.Status, out.Gives = status, bodyOf(r.Content)
		}
	}
	return out
}

func bodyOf(content map[string]*huma.MediaType) docsRef {
	if m := content["application/json"]; m != nil {
		return typeOf(m.Schema)
	}
	return docsRef{}
}

func typeOf(s *huma.Schema) docsRef {
	switch {
	case s == nil:
		return docsRef{}
	case s.Ref != "":
		name := s.Ref[strings.LastIndex(s.Ref, "/")+1:]
		return docsRef{name, name}
	case len(s.AnyOf) > 0: // or null
		return typeOf(s.AnyOf[0])
	case s.Type == "array" && s.Items != nil:
		of := typeOf(s.Items)
		return docsRef{"list of " + of.Text, of.Link}
	case s.Format != "":
		return docsRef{s.Type + " (" + s.Format + ")", ""}
	}
	return docsRef{s.Type, ""}
}

// rules are what a value has to keep to, in words.
func rules(s *huma.Schema) string {
	var list []string
	if s == nil {
		return ""
	}
	if len(s.Enum) > 0 {
		var values []string
		for _, v := range s.Enum {
			if text, ok := v.(string); ok {
				values = append(values, text)
			}
		}
		list = append(list, "one of "+strings.Join(values, ", "))
	}
	if s.PatternDescription != "" {
		list = append(list, s.PatternDescription)
	}
	return strings.Join(list, "; ")
}
