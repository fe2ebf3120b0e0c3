package istio

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// File is one configuration file.
type File struct {
	// Name is how problems call the file.
	Name string
	// Data is YAML, with any number of documents, or JSON.
	Data []byte
}

// ReadDir reads every *.yaml, *.yml and *.json file, in any case, of fsys and of its
// directories, in the order of [fs.WalkDir]. Files and directories whose name begins with a
// dot are skipped. Links to files are followed, links to directories are not,
// so that a mounted Kubernetes ConfigMap is read once. What has such a name and
// is no regular file of at most 32 MiB is an error: a pipe would never end.
func ReadDir(fsys fs.FS) ([]File, error) {
	var files []File
	err := fs.WalkDir(fsys, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name != "." && strings.HasPrefix(entry.Name(), ".") {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if entry.IsDir() || !IsConfigName(name) {
			return nil
		}
		data, err := readRegular(fsys, name)
		if err != nil {
			return err
		}
		files = append(files, File{Name: name, Data: data})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return files, nil
}

// maxFile bounds a file: ten thousand services take a tenth of it.
const maxFile = 32 << 20

func readRegular(fsys fs.FS, name string) ([]byte, error) {
	// Before it is opened, because to open a pipe waits for who writes it.
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is not a regular file: give it another name, or remove it", name)
	}
	tooLarge := fmt.Errorf("%q has more than %d bytes: split it", name, maxFile)
	if info.Size() > maxFile { // it is not read in vain, which would be done again and again
		return nil, tooLarge
	}
	file, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, err
	}
	if len(data) > maxFile { // it has grown
		return nil, tooLarge
	}
	return data, nil
}

// IsConfigName reports whether [ReadDir] reads a file of this name, for its extension.
func IsConfigName(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}
