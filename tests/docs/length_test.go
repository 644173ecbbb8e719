package docs

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file of more lines has a second idea that wants a file of its own.
const longest = 600

func TestNoSourceFileIsTooLong(t *testing.T) {
	files := 0
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			// What the build makes, and what belongs to no program of ours.
			if name := entry.Name(); name == "target" || name == "bin" || strings.HasPrefix(name, ".") && path != root {
				return fs.SkipDir
			}
			return nil
		}
		switch filepath.Ext(path) {
		case ".rs", ".go", ".c", ".h", ".sh":
		default:
			return nil
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		if bytes.Contains(source, []byte("Written by cbindgen")) { // the second idea is in what it is made of
			return nil
		}
		if lines := bytes.Count(source, []byte("\n")); lines > longest {
			t.Errorf("%s has %d lines, more than %d: look for its second idea", path, lines, longest)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 200 {
		t.Errorf("saw only %d source files", files)
	}
}
