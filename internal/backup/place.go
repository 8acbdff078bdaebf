package backup

import (
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/twinspan/twinspan/internal/problem"
)

// PlaceKind is what holds a repository.
type PlaceKind string

// The kinds.
const (
	Directory PlaceKind = "directory"
	S3        PlaceKind = "s3"
	Azure     PlaceKind = "azure"
	GCS       PlaceKind = "gcs"
)

// Place is where a repository is: a directory, or a path in a bucket of an object store. It holds no secret.
type Place struct {
	Kind    PlaceKind
	Path    string            // absolute: the directory, or the path in the bucket
	Bucket  string            // of an object store; a container of Azure's
	Options map[string]string // of an object store
}

// Options of the kinds: what they mean is docs/backups.md.
var placeOptions = map[PlaceKind][]string{
	S3:    {"endpoint", "region", "uri-style", "ca-file"},
	Azure: {"account", "endpoint", "uri-style", "ca-file"},
	GCS:   {"endpoint", "ca-file"},
}

var neededOptions = map[PlaceKind][]string{S3: {"endpoint", "region"}, Azure: {"account"}}

// ParsePlace reads a place as people write it: a directory with its full path, or
//
//	s3://BUCKET/PATH?endpoint=HOST&region=REGION
//	azure://CONTAINER/PATH?account=ACCOUNT
//	gcs://BUCKET/PATH
func ParsePlace(text string) (Place, error) {
	scheme, _, isURL := strings.Cut(text, "://")
	if !isURL {
		if !filepath.IsAbs(text) || !ordinary(text) || filepath.Clean(text) != text || text == "/" {
			return Place{}, badPlace(text, "name a directory with its full path, or an object store such as s3://BUCKET/PATH?endpoint=HOST&region=REGION")
		}
		return Place{Kind: Directory, Path: text}, nil
	}
	p := Place{Kind: PlaceKind(scheme), Options: map[string]string{}}
	allowed, known := placeOptions[p.Kind]
	if !known {
		return Place{}, badPlace(text, "use s3://, azure:// or gcs://, or a directory with its full path")
	}
	u, err := url.Parse(text)
	if err != nil || u.User != nil || u.Fragment != "" || u.Host == "" || !ordinary(u.Path) {
		return Place{}, badPlace(hidden(text), "write it as "+scheme+"://BUCKET/PATH?OPTION=VALUE; keys belong into the file that --credentials names")
	}
	p.Bucket, p.Path = u.Host, "/"+strings.Trim(u.Path, "/")
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Place{}, badPlace(hidden(text), "write options as OPTION=VALUE, with & between them")
	}
	for name, values := range query {
		if !slices.Contains(allowed, name) || len(values) != 1 || values[0] == "" || !ordinary(values[0]) {
			return Place{}, badPlace(hidden(text), "its options are "+strings.Join(allowed, ", ")+"; keys belong into the file that --credentials names")
		}
		p.Options[name] = values[0]
	}
	for _, name := range neededOptions[p.Kind] {
		if p.Options[name] == "" {
			return Place{}, badPlace(text, "it needs the option "+name)
		}
	}
	if style := p.Options["uri-style"]; style != "" && style != "path" && style != "host" {
		return Place{}, badPlace(text, "uri-style is path or host")
	}
	return p, nil
}

// hidden is a place without what may be a secret that does not belong there.
func hidden(text string) string {
	scheme, rest, _ := strings.Cut(text, "://")
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest = rest[i+1:]
	}
	rest, _, _ = strings.Cut(rest, "?")
	return scheme + "://" + rest
}

// ordinary says that a text can be a value in the configuration of programs.
func ordinary(text string) bool {
	return strings.TrimSpace(text) == text && !strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || r == unicode.ReplacementChar })
}

func badPlace(text, hint string) error {
	return problem.New(problem.Invalid, "backup_policy_invalid", "%q cannot hold backups", text).WithHint("%s", hint)
}

// Credentials open an object store. They are secrets: never logged, and never part of a command.
type Credentials map[string]string

// credentialNames are those of the kinds. Of the sets one has to be given.
var credentialNames = map[PlaceKind][][]string{
	S3:    {{"key", "secret"}, {"key", "secret", "token"}},
	Azure: {{"key"}, {"sas"}},
	GCS:   {{"service"}, {"token"}},
}

// Validate sees that a kind's credentials are what it needs: of S3 key and secret, and a token where they are for a time;
// of Azure key (of the account) or sas; of GCS service (the JSON of a service account) or token.
func (c Credentials) Validate(kind PlaceKind) error {
	sets := credentialNames[kind]
	if kind == Directory && len(c) == 0 {
		return nil
	}
	for _, set := range sets {
		if len(c) == len(set) && !slices.ContainsFunc(set, func(name string) bool { return c[name] == "" }) {
			for name, value := range c {
				if name != "service" && !ordinary(value) {
					return badCredentials(kind, "the value of "+name+" has a line end or blanks around it")
				}
			}
			return nil
		}
	}
	if kind == Directory {
		return badCredentials(kind, "a directory has none")
	}
	var forms []string
	for _, set := range sets {
		forms = append(forms, strings.Join(set, " and "))
	}
	return badCredentials(kind, "they are "+strings.Join(forms, ", or "))
}

func badCredentials(kind PlaceKind, hint string) error {
	return problem.New(problem.Invalid, "backup_credentials_invalid", "these are no credentials for a repository of the kind %s", kind).
		WithHint("%s: name a file with lines NAME = VALUE with --credentials", hint)
}
