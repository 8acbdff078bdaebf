// Command release makes what is published of a tree of files as they are to be installed: a
// Debian package, an RPM package, and an image in OCI's layout. The same tree, version and
// time give the same bytes.
//
//	release -tree DIR -version VERSION -time SECONDS -out DIR [-only deb|rpm|oci]
//	release -check DIR    unpacks the image in DIR and runs what is in it
package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // packagers register themselves
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm"
)

// request is what is to be made.
type request struct {
	tree, scripts, version, out string
	at                          time.Time
}

func main() {
	var r request
	var only, check string
	var seconds int64
	flag.StringVar(&r.tree, "tree", "", "the files, as they are to be installed")
	flag.StringVar(&r.scripts, "scripts", "ops/package", "the packages' scripts")
	flag.StringVar(&r.version, "version", "", "version of the packages")
	flag.StringVar(&r.out, "out", "dist", "where the packages are written")
	flag.StringVar(&only, "only", "", "make this alone: deb, rpm or oci")
	flag.Int64Var(&seconds, "time", 0, "time of everything that has one, in seconds since 1970")
	flag.StringVar(&check, "check", "", "unpack the image in this directory and run the program")
	flag.Parse()
	if check != "" {
		exit(checkImage(check))
	}
	r.at = time.Unix(seconds, 0).UTC()
	for _, format := range []string{"deb", "rpm", "oci"} {
		if only != "" && only != format {
			continue
		}
		made, err := r.make(format)
		if err != nil {
			exit(fmt.Errorf("make %s: %w", format, err))
		}
		fmt.Println(made)
	}
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func (r request) make(format string) (path string, err error) {
	if format == "oci" {
		path = filepath.Join(r.out, "twinspan_"+r.version+"_oci")
		return path, r.image(path)
	}
	packager, err := nfpm.Get(format)
	if err != nil {
		return "", err
	}
	info, err := r.info(format)
	if err != nil {
		return "", err
	}
	path = filepath.Join(r.out, packager.ConventionalFileName(info))
	var text bytes.Buffer
	if err := packager.Package(info, &text); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, text.Bytes(), 0o644)
}

// info describes the package. Its files are those of the tree; what lies in /etc is the
// machine's owner's once it is there.
func (r request) info(format string) (*nfpm.Info, error) {
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "twinspan", Arch: runtime.GOARCH, Platform: "linux", Version: r.version, VersionSchema: "none", Section: "database", Priority: "optional",
		Maintainer: "The Twinspan authors <packages@twinspan.invalid>", License: "Apache-2.0", MTime: r.at,
		Description: "the Managed Instance link for PostgreSQL\nA link ties one database to its twin on another instance, copies it while it is\nin use, keeps it in step in near real time, and lets the two change places.",
	})
	info.Scripts = nfpm.Scripts{PostInstall: filepath.Join(r.scripts, "postinst"), PreRemove: filepath.Join(r.scripts, "prerm"), PostRemove: filepath.Join(r.scripts, "postrm")}
	info.Deb.Compression = "gzip" // xz in Go takes a minute
	info.RPM.Summary, info.RPM.BuildHost = "the Managed Instance link for PostgreSQL", "localhost"
	info.Recommends = []string{map[string]string{"deb": "postgresql-client", "rpm": "postgresql"}[format]}
	err := filepath.WalkDir(r.tree, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		stat, err := entry.Info()
		if err != nil {
			return err
		}
		to := "/" + filepath.ToSlash(strings.TrimPrefix(path, r.tree+string(filepath.Separator)))
		kind := ""
		if strings.HasPrefix(to, "/etc/") {
			kind = files.TypeConfigNoReplace
		}
		info.Contents = append(info.Contents, &files.Content{Source: path, Destination: to, Type: kind,
			FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: stat.Mode().Perm(), MTime: r.at}})
		return nil
	})
	return info, cmp.Or(err, nfpm.PrepareForPackager(info, format))
}

// The user of the image.
const (
	imageUser = 65532
	passwd    = "root:x:0:0:root:/root:/sbin/nologin\ntwinspan:x:65532:65532:twinspan:/var/lib/twinspan:/sbin/nologin\n"
	group     = "root:x:0:\ntwinspan:x:65532:\n"
)

// image has the program, a user, and the directory for agents; the program needs nothing
// else of a system to run.
func (r request) image(path string) error {
	program, err := os.ReadFile(filepath.Join(r.tree, "usr/bin/twinspan"))
	if err != nil {
		return err
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	put := func(name string, mode int64, owner int, text []byte) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(text)), Uid: owner, Gid: owner, ModTime: r.at, Format: tar.FormatPAX}
		if strings.HasSuffix(name, "/") {
			h.Typeflag = tar.TypeDir
		}
		err = errors.Join(err, w.WriteHeader(h))
		_, werr := w.Write(text)
		err = errors.Join(err, werr)
	}
	for _, dir := range []string{"etc/", "usr/", "usr/bin/", "var/", "var/lib/"} {
		put(dir, 0o755, 0, nil)
	}
	put("tmp/", 0o1777, 0, nil)
	put("etc/passwd", 0o644, 0, []byte(passwd))
	put("etc/group", 0o644, 0, []byte(group))
	put("usr/bin/twinspan", 0o755, 0, program)
	put("var/lib/twinspan/", 0o700, imageUser, nil)
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	content, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil }, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return err
	}
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err = mutate.Append(image, mutate.Addendum{Layer: content, History: v1.History{Created: v1.Time{Time: r.at}, CreatedBy: "twinspan " + r.version}})
	if err != nil {
		return err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", runtime.GOARCH, v1.Time{Time: r.at}
	config.Config = v1.Config{Entrypoint: []string{"/usr/bin/twinspan"}, User: "65532:65532", WorkingDir: "/var/lib/twinspan",
		Env: []string{"PATH=/usr/bin", "HOME=/var/lib/twinspan"}, Volumes: map[string]struct{}{"/var/lib/twinspan": {}},
		Labels: map[string]string{"org.opencontainers.image.title": "twinspan", "org.opencontainers.image.version": r.version, "org.opencontainers.image.licenses": "Apache-2.0"}}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return err
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	to, err := layout.Write(path, empty.Index)
	if err != nil {
		return err
	}
	return to.AppendImage(image, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": r.version}))
}

// checkImage validates an image, unpacks it as an engine does, and runs the program in it.
func checkImage(path string) error {
	index, err := layout.ImageIndexFromPath(path)
	if err != nil {
		return err
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	if len(manifest.Manifests) != 1 {
		return fmt.Errorf("%d images in %s", len(manifest.Manifests), path)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		return err
	}
	if err := validate.Image(image); err != nil {
		return err
	}
	root, err := os.MkdirTemp("", "twinspan-image")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	all := mutate.Extract(image)
	defer all.Close()
	for in := tar.NewReader(all); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		to := filepath.Join(root, filepath.Clean("/"+h.Name))
		if h.Typeflag == tar.TypeDir {
			if err := os.MkdirAll(to, 0o755); err != nil {
				return err
			}
			continue
		}
		text, err := io.ReadAll(in)
		if err == nil {
			err = os.WriteFile(to, text, fs.FileMode(h.Mode).Perm())
		}
		if err != nil {
			return err
		}
	}
	config, err := image.ConfigFile()
	if err != nil {
		return err
	}
	program := exec.Command(filepath.Join(root, config.Config.Entrypoint[0]), "version")
	program.Env = []string{}
	out, err := program.CombinedOutput()
	fmt.Printf("%s", out)
	return err
}
