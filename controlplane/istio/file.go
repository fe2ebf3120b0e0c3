package istio

import (
	"fmt"
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

// ReadDir reads every *.yaml, *.yml and *.json file of fsys and of its
// directories, in the order of [fs.WalkDir]. Files and directories whose name begins with a
// dot are skipped. Links to files are followed, links to directories are not,
// so that a mounted Kubernetes ConfigMap is read once.
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
		if entry.IsDir() || !isConfigName(name) {
			return nil
		}
		data, err := fs.ReadFile(fsys, name)
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

func isConfigName(name string) bool {
	switch path.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}
