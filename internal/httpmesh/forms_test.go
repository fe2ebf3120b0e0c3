package httpmesh

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"strings"
	"testing"
)

// What an application parses of a request goes to files, which net/http removes of
// its own request only.
func TestTheFilesOfAFormAreRemoved(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	files := 0
	address := serveInbound(t, plaintext(), http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil {
			t.Error(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Error(err)
		}
		files = len(entries)
	}))
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("file", "file")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(part, strings.NewReader(strings.Repeat("x", 11<<20))) // 10 MiB more are kept in memory
	_ = form.Close()
	resp, err := http.Post("http://"+address+"/", form.FormDataContentType(), &body)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || files != 1 || len(left) != 0 {
		t.Errorf("status %d, %d files, %d of them left", resp.StatusCode, files, len(left))
	}
}
