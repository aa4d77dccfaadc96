package bucket

import (
	"errors"
	"fmt"
	"net/http"

	"gocloud.dev/gcerrors"
)

// explain names operation, key and bucket, and turns the library's codes into this package's errors.
func (b *Bucket) explain(operation, key string, err error) error {
	if err == nil {
		return nil
	}
	switch code := gcerrors.Code(err); {
	case code == gcerrors.FailedPrecondition, code == gcerrors.AlreadyExists:
		err = ErrExists // the library's own words add nothing
	case code == gcerrors.NotFound && operation == "put":
		err = fmt.Errorf("%w: the bucket does not exist, or is not to be seen: %w", ErrNotFound, err)
	case code == gcerrors.NotFound:
		err = ErrNotFound
	case code == gcerrors.PermissionDenied:
		err = fmt.Errorf("%w to %s objects, with these credentials: %w", ErrDenied, operation, err)
	case operation == "put" && statusOf(err) == http.StatusNotImplemented:
		err = fmt.Errorf("%w: it refuses conditional writes (If-None-Match), without which writers could overwrite "+
			"each other. Use a version of it that has them, or another server: %w", ErrUnable, err)
	}
	if key == "" {
		return fmt.Errorf("%s archive %s: %w", operation, b.url, err)
	}
	return fmt.Errorf("%s %s in archive %s: %w", operation, key, b.url, err)
}

// statusOf returns the HTTP status of a server's answer, 0 when err is no such answer.
func statusOf(err error) int {
	var answer interface{ HTTPStatusCode() int }
	if errors.As(err, &answer) {
		return answer.HTTPStatusCode()
	}
	return 0
}
