package buckettest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// S3Bucket is the one bucket of an S3.
const S3Bucket = "logs"

// S3Faults are what a server, the way to it, or its permissions may do to its clients.
type S3Faults struct {
	LoseAnswers   bool // puts are stored and then answered with 500
	NoConditions  bool // 501 for conditional puts
	DenyPuts      bool // 403 for puts
	DenyLists     bool // 403 for lists
	DenyReads     bool // 403 for reads of segments
	IgnoreRanges  bool // the whole object is sent for a part of it
	HostNamesOnly bool // 403 unless the bucket is in the host's name
}

// S3 is an S3 server in memory whose faults can be changed at any time. It checks no signatures.
type S3 struct {
	next http.Handler

	mu struct {
		sync.Mutex
		faults S3Faults
		puts   int
	}
}

// NewS3 makes a server with an empty bucket.
func NewS3() (*S3, error) {
	backend := s3mem.New()
	if err := backend.CreateBucket(S3Bucket); err != nil {
		return nil, err
	}
	return &S3{next: gofakes3.New(backend).Server()}, nil
}

// Set replaces the faults.
func (s *S3) Set(faults S3Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.faults = faults
}

// Puts returns how many puts have been asked for.
func (s *S3) Puts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.puts
}

// ServeHTTP implements http.Handler.
func (s *S3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	put := r.Method == http.MethodPut
	s.mu.Lock()
	faults := s.mu.faults
	if put {
		s.mu.puts++
	}
	s.mu.Unlock()
	r.URL.Scheme, r.URL.Host = "", "" // of a request to a proxy
	if strings.HasPrefix(r.Host, S3Bucket+".") {
		r.URL.Path, r.URL.RawPath = "/"+S3Bucket+r.URL.Path, ""
	} else if faults.HostNamesOnly {
		refuse(w, http.StatusForbidden, "SecondLevelDomainForbidden")
		return
	}
	switch {
	case put && faults.DenyPuts, r.URL.Query().Has("list-type") && faults.DenyLists,
		!put && faults.DenyReads && strings.HasSuffix(r.URL.Path, ".sst"):
		refuse(w, http.StatusForbidden, "AccessDenied")
		return
	case put && faults.NoConditions && r.Header.Get("If-None-Match") != "":
		refuse(w, http.StatusNotImplemented, "NotImplemented")
		return
	case faults.IgnoreRanges:
		r.Header.Del("Range")
	}
	if !put || !faults.LoseAnswers {
		s.next.ServeHTTP(w, r)
		return
	}
	answer := httptest.NewRecorder()
	s.next.ServeHTTP(answer, r)
	if answer.Code == http.StatusOK {
		refuse(w, http.StatusInternalServerError, "InternalError")
		return
	}
	w.WriteHeader(answer.Code)
	_, _ = answer.Body.WriteTo(w) // the client may be gone
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = w.Write([]byte("<Error><Code>" + code + "</Code><Message>" + code + "</Message></Error>")) // likewise
}
