package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed static/*.css static/*.js static/*.svg static/vendor/*.css static/vendor/*.js static/vendor/uplot.LICENSE
var staticFiles embed.FS

//go:embed templates
var templateFiles embed.FS

// asset is a file that pages use.
type asset struct {
	text []byte
	kind string // its media type
}

// static is the files by their names with a hash of what they hold: one that changes has
// another name, and browsers may keep them.
type static struct {
	byName map[string]string // name with the hash, by the plain name
	files  map[string]asset
}

// hashDigits is how much of a hash stands in a name.
const hashDigits = 12

func loadStatic() (static, error) {
	s := static{byName: map[string]string{}, files: map[string]asset{}}
	err := fs.WalkDir(staticFiles, "static", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := staticFiles.ReadFile(name)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(text)
		plain := strings.TrimPrefix(name, "static/")
		ext := path.Ext(plain)
		hashed := strings.TrimSuffix(plain, ext) + "." + hex.EncodeToString(sum[:])[:hashDigits] + ext
		s.byName[plain] = hashed
		s.files[hashed] = asset{text, mime.TypeByExtension(ext)}
		return nil
	})
	return s, err
}

// ServeHTTP implements http.Handler.
func (s static) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, has := s.files[strings.TrimPrefix(r.URL.Path, Base+"static/")]
	if !has {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(a.text) // the browser may be gone
}

// address is where a file is served.
func (s static) address(name string) (string, error) {
	hashed, has := s.byName[name]
	if !has {
		return "", fmt.Errorf("there is no static file %s", name)
	}
	return Base + "static/" + hashed, nil
}

// templates are the pages, each with the layout, by name.
type templates map[string]*template.Template

func (f *face) loadTemplates() (templates, error) {
	common := template.New("").Funcs(functions()).Funcs(template.FuncMap{"static": f.static.address})
	common, err := common.ParseFS(templateFiles, "templates/layout.html", "templates/parts.html")
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(templateFiles, "templates/page_*.html")
	if err != nil {
		return nil, err
	}
	all := templates{}
	for _, name := range names {
		t, err := common.Clone()
		if err == nil {
			t, err = t.ParseFS(templateFiles, name)
		}
		if err != nil {
			return nil, err
		}
		all[strings.TrimSuffix(strings.TrimPrefix(path.Base(name), "page_"), ".html")] = t
	}
	return all, nil
}
