package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
)

// slowBucket measures how throughput follows the number of workers when the bucket, not the processor, is what they
// wait for. Segments are small, so that many puts are needed and none costs much processor time.
func slowBucket(ctx context.Context, r *run) error {
	const bucketName, segmentBytes = "slow", "64KiB"
	logs := max(r.Entries/5, 1000)
	server, err := newSlowS3(bucketName, bucketLatency)
	if err != nil {
		return err
	}
	defer server.close()
	var one float64
	for _, workers := range []int{1, 4, 16} {
		if err := r.fresh(ctx); err != nil {
			return err
		}
		mark, _, err := r.backlog(ctx, spread(logs, logs, entryBytes))
		if err != nil {
			return err
		}
		r.step(fmt.Sprintf("archiving it with %d workers", workers))
		h, _, err := r.archiveBacklog(ctx, mark, logs, "--archive", server.of(fmt.Sprint(workers)), "--workers", fmt.Sprint(workers), "--segment-bytes", segmentBytes)
		if err != nil {
			return err
		}
		rate := float64(logs-h.opening) / h.last.Sub(h.first).Seconds() // before the first commit, nobody waits for the bucket
		if workers == 1 {
			one = rate
		}
		r.compare(fmt.Sprintf("%d workers", workers), "entries/s", rate, "one worker", one, nil)
	}
	return nil
}

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
		url: fmt.Sprintf("s3://%s?endpoint=http://%s&region=us-east-1&use_path_style=true&anonymous=true", bucket, listener.Addr()),
		server: &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
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
