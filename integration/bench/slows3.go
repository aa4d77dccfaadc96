//go:build !release

package bench

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// hasS3 reports whether this build has an S3 server to measure with.
const hasS3 = true

// slowS3 is an S3 server in memory that answers late.
type slowS3 struct {
	url    string // of the whole bucket
	server *http.Server
	served chan error
}

// of returns the URL of one archive of several: each system has its own.
func (s *slowS3) of(name string) string { return strings.Replace(s.url, "?", "/"+name+"?", 1) }

func newSlowS3(bucket string, latency time.Duration) (*slowS3, error) {
	backend := s3mem.New()
	if err := backend.CreateBucket(bucket); err != nil {
		return nil, err
	}
	fake := gofakes3.New(backend).Server()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &slowS3{
		url: fmt.Sprintf("s3://%s?endpoint=http://%s&region=us-east-1&use_path_style=true&anonymous=true", bucket,
			listener.Addr()),
		server: &http.Server{ReadHeaderTimeout: time.Minute,
			Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
				select {
				case <-time.After(latency):
				case <-request.Context().Done():
				}
				fake.ServeHTTP(w, request)
			})},
		served: make(chan error, 1),
	}
	go func() { s.served <- s.server.Serve(listener) }()
	return s, nil
}

func (s *slowS3) close() {
	_ = s.server.Close() // nobody uses it any more
	if err := <-s.served; !errors.Is(err, http.ErrServerClosed) {
		panic(fmt.Sprintf("the slow bucket ended: %v", err))
	}
}
