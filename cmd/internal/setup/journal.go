package setup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// journal is what the state file holds.
type journal struct {
	Version int      `json:"version"`
	Options string   `json:"options"` // the flags that it was asked for with
	Words   []string `json:"nic"`     // what the NIC may be called by
	Begun   int      `json:"begun"`   // how many of the steps have been begun
	Whole   bool     `json:"whole"`   // all of them are done
	Folders []string `json:"folders"` // that were made for the state file, outermost first
	Steps   []Step   `json:"steps"`
}

// version is of the form of the file.
const version = 1

// load reads the state file; nil where there is none.
func load(path string) (*journal, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was set up before: %w", err)
	}
	j := new(journal)
	if err := json.Unmarshal(text, j); err != nil {
		return nil, fmt.Errorf("read what was set up before: %s: %w", path, err)
	}
	if j.Version != version {
		return nil, fmt.Errorf("read what was set up before: %s has version %d, and this is `machnet setup` of version %d; use the one that wrote it", path, j.Version, version)
	}
	if len(j.Words) == 0 || j.Begun < 0 || j.Begun > len(j.Steps) {
		return nil, fmt.Errorf("read what was set up before: %s names no NIC, or more steps than it has", path)
	}
	return j, nil
}

// same says whether the options ask for what the journal did.
func (j *journal) same(o Options) bool {
	if !slices.Contains(j.Words, o.NIC) {
		return false
	}
	for _, word := range j.Words {
		o.NIC = word
		if o.words() == j.Options {
			return true
		}
	}
	return false
}

// save replaces the state file, on the disk too: after a crash there is the old one or the new one.
func (j *journal) save(path string) error {
	text, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".setup-*")
	if err == nil {
		_, err = file.Write(append(text, '\n'))
		err = errors.Join(err, file.Sync(), file.Close())
		if err == nil {
			err = os.Rename(file.Name(), path)
		}
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}
	if err != nil {
		return fmt.Errorf("write down what is set up: %w", err)
	}
	return nil
}

// hold makes the folder of the state file if it is missing, and keeps others from setting up meanwhile. It returns the folders that it made.
func hold(path string) (release func(), made []string, err error) {
	folder := filepath.Dir(path)
	for dir := folder; !exists(dir); dir = filepath.Dir(dir) {
		made = append([]string{dir}, made...)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, nil, fmt.Errorf("write down what is set up: %w", err)
	}
	dir, err := os.Open(folder)
	if err != nil {
		return nil, made, fmt.Errorf("write down what is set up: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, made, errors.Join(fmt.Errorf("another `machnet setup` is at work with %s; wait for it", path), dir.Close())
	}
	return func() { dir.Close() }, made, nil
}

// forget removes the state file, and the folders that were made for it if nothing else is in them.
func (j *journal) forget(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget what was set up: %w", err)
	}
	for _, folder := range slices.Backward(j.Folders) {
		_ = os.Remove(folder) // stays if others use it
	}
	return nil
}
