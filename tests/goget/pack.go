package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

// modules are the folders of those that users get.
var modules = []string{".", "go/machnettest"}

// pack makes the file tree of a proxy (https://go.dev/ref/mod#goproxy-protocol) that serves the modules. What git does not know is
// not in it: no proxy would have it.
func pack(b *bench) (string, error) {
	manifest, err := os.ReadFile(filepath.Join(b.root, "Cargo.toml"))
	if err != nil {
		return "", err
	}
	number := regexp.MustCompile(`(?m)^version = "(.*)"$`).FindSubmatch(manifest)
	if number == nil {
		return "", fmt.Errorf("there is no version in Cargo.toml")
	}
	b.version = "v" + string(number[1])
	listed, err := run(b.root, nil, "git", "ls-files", "-z")
	if err != nil {
		return "", err
	}
	var said []string
	for _, folder := range modules {
		size, err := packModule(b, folder, strings.Split(strings.TrimSuffix(listed, "\x00"), "\x00"))
		if err != nil {
			return "", err
		}
		said = append(said, fmt.Sprintf("%s in %d kB", folder, size/1000))
	}
	return b.version + ", " + strings.Join(said, ", "), nil
}

// packModule packs one, and returns how many bytes a user downloads.
func packModule(b *bench, folder string, listed []string) (int, error) {
	mod, err := os.ReadFile(filepath.Join(b.root, folder, "go.mod"))
	if err != nil {
		return 0, err
	}
	file, err := modfile.Parse("go.mod", mod, nil)
	if err != nil {
		return 0, err
	}
	for _, r := range file.Require {
		if strings.HasPrefix(r.Mod.Path, "github.com/machnet/") && r.Mod.Version != b.version {
			return 0, fmt.Errorf("%s/go.mod requires %v, and this is %s; write that", folder, r.Mod, b.version)
		}
	}
	var files []zip.File
	licensed := false
	for _, path := range listed {
		name, below := path, true
		if folder != "." {
			name, below = strings.CutPrefix(path, folder+"/")
		}
		if below {
			files = append(files, packedFile{name, filepath.Join(b.root, path)})
			licensed = licensed || name == "LICENSE"
		}
	}
	if !licensed { // the repository's, as the go command does
		files = append(files, packedFile{"LICENSE", filepath.Join(b.root, "LICENSE")})
	}
	version := module.Version{Path: file.Module.Mod.Path, Version: b.version}
	var packed bytes.Buffer
	if err := zip.Create(&packed, version, files); err != nil {
		return 0, err
	}
	at := filepath.Join(b.folder, "proxy", filepath.FromSlash(version.Path), "@v")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return 0, err
	}
	for name, content := range map[string][]byte{
		"list":              []byte(b.version + "\n"),
		b.version + ".info": []byte(`{"Version":"` + b.version + `"}`),
		b.version + ".mod":  mod,
		b.version + ".zip":  packed.Bytes(),
	} {
		if err := os.WriteFile(filepath.Join(at, name), content, 0o644); err != nil {
			return 0, err
		}
	}
	return packed.Len(), nil
}

// packedFile is a file by its name in the module and its place.
type packedFile struct{ name, place string }

func (f packedFile) Path() string                 { return f.name }
func (f packedFile) Lstat() (os.FileInfo, error)  { return os.Lstat(f.place) }
func (f packedFile) Open() (io.ReadCloser, error) { return os.Open(f.place) }
