// Package docs checks that what the documents say of the code's places is true of the code.
package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the repository.
const root = "../.."

// The documents lead to code as `path`, `path: name, name` or, in the folder of the path named before on the same line,
// `file.rs: name`. Braces stand for alternatives, as in a shell.
var (
	quoted = regexp.MustCompile("`([^`]+)`")
	place  = regexp.MustCompile(`^([\w./*{},-]+?)(?:: ([\w, ]+))?$`)
	braces = regexp.MustCompile(`^(.*)\{([^}]*)\}(.*)$`)
)

// tops are the folders that a path of this repository begins with.
var tops = []string{"rust/", "go/", "cmd/", "tests/", "docs/", "scripts/", "findings/", "raft-transport/", "container/"}

func TestEveryPlaceThatTheDocumentsNameIsThere(t *testing.T) {
	documents, err := filepath.Glob(filepath.Join(root, "docs/*.md"))
	if err != nil {
		t.Fatal(err)
	}
	documents = append(documents, filepath.Join(root, "ARCHITECTURE.md"), filepath.Join(root, "README.md"))
	paths := 0
	for _, document := range documents {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			folder := ""
			for _, found := range quoted.FindAllStringSubmatch(line, -1) {
				parts := place.FindStringSubmatch(found[1])
				if parts == nil {
					continue
				}
				path, names := parts[1], parts[2]
				switch source := strings.HasSuffix(path, ".rs") || strings.HasSuffix(path, ".go"); {
				case startsWithAny(path, tops):
				case source && folder != "" && !strings.Contains(path, "/"):
					path = folder + "/" + path
				default:
					continue
				}
				paths++
				for _, one := range alternatives(path) {
					folder = filepath.Dir(one)
					check(t, filepath.Base(document), i+1, one, names)
				}
			}
		}
	}
	if paths < 100 {
		t.Errorf("found only %d paths in %d documents", paths, len(documents))
	}
}

// check reports a path that does not exist, and names that its file does not mention.
func check(t *testing.T, document string, line int, path, names string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, path))
	if err != nil || len(files) == 0 {
		t.Errorf("%s:%d: %s does not exist", document, line, path)
		return
	}
	if names == "" {
		return
	}
	source, err := os.ReadFile(files[0])
	if err != nil {
		t.Errorf("%s:%d: %v", document, line, err)
		return
	}
	for name := range strings.SplitSeq(names, ",") {
		name = strings.TrimSpace(name)
		if !regexp.MustCompile(`\b` + name + `\b`).Match(source) {
			t.Errorf("%s:%d: %s does not mention %s", document, line, path, name)
		}
	}
}

func startsWithAny(path string, prefixes []string) bool {
	for _, prefix := range prefixes {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// alternatives writes out the braces of a path.
func alternatives(path string) []string {
	parts := braces.FindStringSubmatch(path)
	if parts == nil {
		return []string{path}
	}
	var all []string
	for middle := range strings.SplitSeq(parts[2], ",") {
		all = append(all, alternatives(parts[1]+middle+parts[3])...)
	}
	return all
}
