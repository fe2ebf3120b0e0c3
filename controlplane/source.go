package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/inboardmesh/inboard/controlplane/istio"
)

const (
	// settleTime is how long files must look the same before they are taken:
	// editors write in several steps.
	settleTime = 50 * time.Millisecond
	// doubtTime is the same for what looks half written: files with problems, those
	// that became empty among them.
	doubtTime = 200 * time.Millisecond
	// writeTime is how long nobody must have written to a file for it to be taken: its
	// writer may pause in the middle, and what is there may be good so far. A file that
	// was renamed, or that a link leads to now, is whole and does not wait for that.
	writeTime = time.Second
	// cutTime is the same for a file that was written to and now looks cut off: of its
	// documents, or of its end, a part is gone.
	cutTime = 5 * time.Second
	// lateTime bounds all waiting: what has changed for so long, and goes on to change,
	// is taken as it is.
	lateTime = 10 * time.Second
	// pollTime is how often the files are read without a sign that they
	// changed. Not every change has one: network file systems, a directory
	// that was replaced as a whole.
	pollTime = 2 * time.Second
	// idleFactor times the cost of reading all files is the least pause between two
	// such looks, so that thousands of files do not keep a processor busy.
	idleFactor = 20
)

// ReadDir reads the configuration in a directory, as [istio.ReadDir] does. The
// files are named by their path, beginning with dir, so that problems can be
// found from where dir can.
func ReadDir(dir string) ([]istio.File, error) {
	files, err := istio.ReadDir(os.DirFS(dir))
	for i := range files {
		files[i].Name = filepath.Join(dir, filepath.FromSlash(files[i].Name))
	}
	if err != nil {
		// What os.DirFS calls "." is the directory itself.
		if path, ok := errors.AsType[*fs.PathError](err); ok && path.Path == "." {
			err = fmt.Errorf("read configuration: %w", path.Err)
		}
		return nil, fmt.Errorf("directory %q: %w", dir, err)
	}
	return files, nil
}

// reading is what was found in the directory at one time.
type reading struct {
	version  string
	files    []istio.File
	parsed   *istio.Config
	problems []istio.Problem
	doubtful bool
	// cut is that a file has less than what is served of it.
	cut bool
}

// source follows the files of a directory. It belongs to one goroutine.
type source struct {
	server *Server
	// settled is the version that was served or reported last.
	settled string
	// served are the files with content of the version that is served.
	served map[string][]byte
	// next is what was seen since, and when for the first time; begun is when something
	// else than what is settled was seen first.
	next         *reading
	since, begun time.Time
	// written is when a file was last written to. signed is that there was a sign of
	// what changed, so that it is known whether it was written or renamed.
	written time.Time
	signed  bool

	notify *fsnotify.Watcher // nil: the system has none left; polling remains
	// linked are the files that links in the directory lead to.
	linked map[string]bool
}

func newSource(s *Server, version string, files []istio.File) *source {
	src := &source{server: s, settled: version, served: servedOf(files)}
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		s.logger.Warn("files cannot be watched: changes are seen with a delay", "error", err, "delay", pollTime)
		return src
	}
	src.notify = notify
	src.follow()
	return src
}

// run serves what changes, until ctx ends.
func (s *source) run(ctx context.Context) {
	var events chan fsnotify.Event
	var errs chan error
	if s.notify != nil {
		events, errs = s.notify.Events, s.notify.Errors
		defer func() { _ = s.notify.Close() }() // nobody reads it any more
	}
	poll := time.NewTicker(pollTime)
	defer poll.Stop()
	// The first look is for what changed before the watches were there.
	look := time.NewTimer(0)
	defer look.Stop()
	due := time.Now() // the next look; zero for none
	plan := func(now time.Time, wait time.Duration) {
		// Never moved back by later events: a directory in which something
		// happens all the time is still read.
		if at := now.Add(wait); due.IsZero() || at.Before(due) {
			look.Reset(wait)
			due = at
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case event := <-events:
			now := time.Now()
			s.note(event, now)
			plan(now, settleTime)
			continue
		case err := <-errs: // too many events; some were lost
			s.server.logger.Warn("watch of the configuration", "error", err)
			s.signed, s.written = true, time.Now() // of those there may have been any
		case <-poll.C:
		case <-look.C:
			due = time.Time{}
		}
		start := time.Now()
		wait := s.look(start)
		poll.Reset(max(pollTime, idleFactor*time.Since(start)))
		if wait > 0 {
			plan(start, wait)
		}
	}
}

// look reads the directory. It returns when to look again, or 0 if there is
// nothing to wait for.
func (s *source) look(now time.Time) time.Duration {
	s.follow() // before reading: what changes later has an event
	files, err := ReadDir(s.server.dir)
	version := versionOf(files)
	if err != nil {
		version = err.Error()
	}
	if version == s.settled {
		s.next, s.signed = nil, false
		return 0
	}
	if s.next == nil || s.next.version != version {
		if s.next == nil {
			s.begun = now
		}
		s.next, s.since = s.parse(version, files, err), now
		if !s.signed {
			s.written = now
		}
	}
	if wait := s.takenAt().Sub(now); wait > 0 {
		return wait
	}
	s.settle()
	return 0
}

// note takes down what happened to a file.
func (s *source) note(event fsnotify.Event, now time.Time) {
	s.signed = true
	if !event.Has(fsnotify.Write) {
		return
	}
	hidden := strings.HasPrefix(filepath.Base(event.Name), ".")
	if s.linked[event.Name] || istio.IsConfigName(event.Name) && !hidden {
		s.written = now
	}
}

// takenAt is when what was seen last comes into force, if nothing else happens.
func (s *source) takenAt() time.Time {
	quiet, unwritten := settleTime, writeTime
	if s.next.doubtful {
		quiet = doubtTime
	}
	if s.next.cut {
		unwritten = cutTime
	}
	at := s.since.Add(quiet)
	if whole := s.written.Add(unwritten); whole.After(at) {
		at = whole
	}
	if last := s.begun.Add(lateTime); last.Before(at) {
		at = last
	}
	return at
}

func (s *source) parse(version string, files []istio.File, err error) *reading {
	if err != nil {
		return &reading{version: version, doubtful: true, problems: []istio.Problem{{File: s.server.dir, Message: err.Error()}}}
	}
	r := &reading{version: version, files: files}
	r.parsed, r.problems = s.server.parse(files)
	r.problems = append(r.problems, s.lost(files)...)
	r.doubtful = len(r.problems) > 0
	r.cut = slices.ContainsFunc(files, func(file istio.File) bool { return isCut(s.served[file.Name], file.Data) })
	return r
}

// lost tells what is gone in a way that nobody may have meant: a copy that was broken
// off and a disk that was full leave a file without content, or none of the files. With
// them the policies would be gone.
func (s *source) lost(files []istio.File) []istio.Problem {
	if len(files) == 0 && len(s.served) > 0 {
		return []istio.Problem{{File: s.server.dir, Message: "no file is left in the directory: " +
			"what was there stays in force; to serve nothing, start the control plane anew"}}
	}
	var problems []istio.Problem
	for _, file := range files {
		if isBlank(file) && s.served[file.Name] != nil {
			problems = append(problems, istio.Problem{File: file.Name, Message: "the file has become empty: " +
				"what was in it stays in force; to withdraw it, remove the file"})
		}
	}
	return problems
}

// isBlank tells of a file in which nobody has written anything, not even a comment.
func isBlank(file istio.File) bool { return len(bytes.TrimSpace(file.Data)) == 0 }

// servedOf are the contents of files that have any.
func servedOf(files []istio.File) map[string][]byte {
	served := make(map[string][]byte, len(files))
	for _, file := range files {
		if !isBlank(file) {
			served[file.Name] = file.Data
		}
	}
	return served
}

// isCut tells of a file that lacks documents that it had, or its end: it may be one that
// is being written anew.
func isCut(before, now []byte) bool {
	if before == nil || bytes.Equal(before, now) {
		return false
	}
	return bytes.HasPrefix(before, now) ||
		bytes.HasSuffix(before, []byte("\n")) && !bytes.HasSuffix(now, []byte("\n")) ||
		documents(now) < documents(before)
}

// documents counts the documents of a file in which something is written.
func documents(data []byte) (n int) {
	filled := false
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, " \t\r\n")
		switch {
		case bytes.Equal(line, []byte("---")) || bytes.HasPrefix(line, []byte("--- ")):
			filled = len(line) > 4 && line[4] != '#'
			if filled {
				n++
			}
		case !filled && len(bytes.TrimSpace(line)) > 0 && bytes.TrimSpace(line)[0] != '#':
			filled = true
			n++
		}
	}
	return n
}

// settle takes what was seen.
func (s *source) settle() {
	r := s.next
	s.next, s.settled, s.signed = nil, r.version, false
	if len(r.problems) == 0 {
		s.served = servedOf(r.files)
	}
	s.server.install(r.files, r.parsed, r.problems)
}

// follow watches the directories that the files are in now, and no others.
func (s *source) follow() {
	if s.notify == nil {
		return
	}
	wanted, linked := directories(s.server.dir)
	s.linked = linked
	watched := s.notify.WatchList()
	for _, dir := range watched {
		if !slices.Contains(wanted, dir) {
			_ = s.notify.Remove(dir) // it may be gone already, and its watch with it
		}
	}
	for _, dir := range wanted {
		if !slices.Contains(watched, dir) {
			_ = s.notify.Add(dir) // it may be gone already; the next look tells
		}
	}
}

// directories returns where a change can show: the directory itself and those
// below it, where links in them lead to, and what the directory is in if it
// is a link; and the files that links lead to.
func directories(dir string) (directories []string, linked map[string]bool) {
	found := make(map[string]bool)
	linked = make(map[string]bool)
	if info, err := os.Lstat(dir); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		found[filepath.Dir(filepath.Clean(dir))] = true
	}
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return slices.Collect(maps.Keys(found)), linked
	}
	// What cannot be read here cannot be read by ReadDir either, which
	// reports it.
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, unreadable error) error {
		switch {
		case unreadable != nil:
			return fs.SkipDir
		case entry.IsDir():
			if path != root && strings.HasPrefix(entry.Name(), ".") {
				return fs.SkipDir
			}
			found[path] = true
		case entry.Type()&fs.ModeSymlink != 0:
			if target, err := filepath.EvalSymlinks(path); err == nil {
				found[filepath.Dir(target)] = true
				linked[target] = true
			}
		}
		return nil
	})
	return slices.Collect(maps.Keys(found)), linked
}
