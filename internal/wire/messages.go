package wire

import (
	"errors"
	"fmt"
	"slices"

	"dormouse/internal/codec"
	"dormouse/internal/extent"
	"dormouse/internal/logid"
	"dormouse/internal/shardid"
)

// Bounds of the messages. MaxItemLogs x MaxBytes of a LogID keeps a work item far below NATS's default max_payload.
const (
	MaxItemLogs    = 256  // LogIDs in one work item
	MaxDrainLogs   = 2048 // LogIDs in one drain request: eight work items
	MaxCommitLogs  = 8192 // extents in one commit
	MaxListReplies = 512  // logs in one list reply
	MaxExtents     = 1024 // extents in one extents reply
)

// WorkItem is what the SyncQueue carries: logs of one shard that are ready to be drained from the owner of Epoch.
type WorkItem struct {
	Shard shardid.Shard `cbor:"1,keyasint"`
	Epoch uint64        `cbor:"2,keyasint"`
	Logs  []string      `cbor:"3,keyasint"`
}

// Validate reports what makes the item one that no worker can work on.
func (w WorkItem) Validate() error { return validateLogs(w.Logs, MaxItemLogs) }

// DrainRequest asks an owner for the buffered entries of Logs, in the order given, which must be ascending. It is
// stateless: where the last reply stopped is in the request.
type DrainRequest struct {
	Logs     []string `cbor:"1,keyasint"`
	After    uint64   `cbor:"2,keyasint,omitempty"` // of Logs[0], only entries above this sequence
	Offset   int      `cbor:"3,keyasint,omitempty"` // of that next entry, go on at this byte of its value
	MaxBytes int      `cbor:"4,keyasint"`           // how much DrainReply.Data the asker takes
}

// Validate reports what the owner must refuse.
func (r DrainRequest) Validate() error {
	if r.Offset < 0 || r.MaxBytes <= 0 {
		return fmt.Errorf("offset %d and byte limit %d must not be negative or zero", r.Offset, r.MaxBytes)
	}
	return validateLogs(r.Logs, MaxDrainLogs)
}

// DrainReply holds entries, ascending by (LogID, sequence), and where to go on.
type DrainReply struct {
	Status
	// Data is a Pebble batch representation (readable with its batchrepr package) of Sets: entry.Key -> entry value. It
	// follows the CBOR, so that neither end copies it once more; a decoded one shares the message's memory.
	Data []byte `cbor:"-"`
	// Piece is set, and Data empty, when the next entry alone is larger than the byte limit.
	Piece *Piece `cbor:"4,keyasint,omitempty"`
	// Skip, After and Offset make the next request: the first Skip logs are finished.
	Skip   int    `cbor:"5,keyasint,omitempty"`
	After  uint64 `cbor:"6,keyasint,omitempty"`
	Offset int    `cbor:"7,keyasint,omitempty"`
	// Done: all that was buffered for the logs when they were read has been sent.
	Done bool `cbor:"8,keyasint,omitempty"`
}

// Piece is a part of one value that is too large for one reply.
type Piece struct {
	Key    []byte `cbor:"1,keyasint"`
	Offset int    `cbor:"2,keyasint"` // of Bytes in the value
	Total  int    `cbor:"3,keyasint"` // length of the whole value
	Bytes  []byte `cbor:"4,keyasint"`
}

// CommitRequest offers one segment that is durable in the bucket. Extents are ascending by LogID, one for each log.
type CommitRequest struct {
	Segment extent.Segment  `cbor:"1,keyasint"`
	Extents []extent.Extent `cbor:"2,keyasint"`
	Bucket  string          `cbor:"3,keyasint,omitempty"` // ID of the bucket that has the segment
}

// Validate reports what makes the whole request unacceptable.
func (r CommitRequest) Validate() error {
	if r.Segment.Key == "" || len(r.Extents) == 0 || len(r.Extents) > MaxCommitLogs {
		return fmt.Errorf("segment %q with %d extents, want a key and 1 to %d", r.Segment.Key, len(r.Extents), MaxCommitLogs)
	}
	for i, e := range r.Extents {
		if err := errors.Join(logid.Validate(e.Log), e.Validate()); err != nil {
			return err
		}
		if i > 0 && r.Extents[i-1].Log >= e.Log {
			return fmt.Errorf("extents out of order: %q after %q", e.Log, r.Extents[i-1].Log)
		}
	}
	return nil
}

// CommitReply says which extents are now in the manifest. With Code OK, all but Refused are committed for good.
type CommitReply struct {
	Status
	Refused []Refusal `cbor:"3,keyasint,omitempty"`
}

// Refusal is one extent that was not committed.
type Refusal struct {
	Log    string `cbor:"1,keyasint"`
	Reason string `cbor:"2,keyasint"`
}

// ExtentsRequest asks for the committed extents of a log that end above After, ascending. With All it asks for those
// and the extents of all logs that sort after Log, which may then be empty.
type ExtentsRequest struct {
	Log   string `cbor:"1,keyasint"`
	All   bool   `cbor:"4,keyasint,omitempty"`
	After uint64 `cbor:"2,keyasint,omitempty"`
	// MinManifest: answer only from a catalog that has applied the manifest up to this stream sequence.
	MinManifest uint64 `cbor:"3,keyasint,omitempty"`
}

// Validate reports what the owner must refuse.
func (r ExtentsRequest) Validate() error {
	if r.All && r.Log == "" {
		return nil
	}
	return logid.Validate(r.Log)
}

// ExtentsReply is one page of extents; More says that another request, After the last one, brings the next.
type ExtentsReply struct {
	Status
	Extents []extent.Located `cbor:"3,keyasint,omitempty"`
	More    bool             `cbor:"4,keyasint,omitempty"`
	Archive string           `cbor:"5,keyasint,omitempty"` // URL of the bucket as the owner opened it, without secrets
	Stream  string           `cbor:"6,keyasint,omitempty"` // the shard's source stream
}

// ListRequest asks for what is known of the logs whose LogID begins with Prefix and sorts after After. With From, After
// itself comes first, of which the last page had the extents before that sequence.
type ListRequest struct {
	Prefix string `cbor:"1,keyasint,omitempty"`
	After  string `cbor:"2,keyasint,omitempty"`
	Limit  int    `cbor:"3,keyasint,omitempty"` // at most MaxListReplies, which zero means too
	From   uint64 `cbor:"4,keyasint,omitempty"`
}

// Validate reports what the owner must refuse.
func (r ListRequest) Validate() error {
	if len(r.Prefix) > logid.MaxBytes || len(r.After) > logid.MaxBytes {
		return fmt.Errorf("prefix of %d and position of %d bytes, the limit is %d", len(r.Prefix), len(r.After),
			logid.MaxBytes)
	}
	return nil
}

// ListReply is one page of logs, ascending by LogID; More says that another request, After the last one, brings the
// next. With Rest the last log has so many extents that they did not fit into the time of one request: those from this
// sequence on, and what is buffered, come with the next page, which is to be asked for From it and to be joined with
// this one.
type ListReply struct {
	Status
	Logs []LogInfo `cbor:"3,keyasint,omitempty"`
	More bool      `cbor:"4,keyasint,omitempty"`
	Rest uint64    `cbor:"5,keyasint,omitempty"`
}

// LogInfo is what ls and stat show of one log: the archived and the still buffered part.
type LogInfo struct {
	Log      string `cbor:"1,keyasint"`
	Archived Part   `cbor:"2,keyasint"`
	Buffered Part   `cbor:"3,keyasint"`
	Extents  uint64 `cbor:"4,keyasint,omitempty"`
}

// Part sums up some entries of a log; the zero Part is none.
type Part struct {
	Entries uint64 `cbor:"1,keyasint,omitempty"`
	Bytes   uint64 `cbor:"2,keyasint,omitempty"` // payload and header bytes
	First   uint64 `cbor:"3,keyasint,omitempty"` // sequence
	Last    uint64 `cbor:"4,keyasint,omitempty"` // sequence
	MinTime int64  `cbor:"5,keyasint,omitempty"` // Unix nanoseconds
	MaxTime int64  `cbor:"6,keyasint,omitempty"` // Unix nanoseconds
}

// Join adds up p and a part that lies behind it.
func (p Part) Join(behind Part) Part {
	switch {
	case p.Entries == 0:
		return behind
	case behind.Entries == 0:
		return p
	}
	return Part{
		Entries: p.Entries + behind.Entries, Bytes: p.Bytes + behind.Bytes, First: p.First, Last: behind.Last,
		MinTime: min(p.MinTime, behind.MinTime), MaxTime: max(p.MaxTime, behind.MaxTime),
	}
}

// Code is the outcome of a request.
type Code uint8

// The codes.
const (
	OK         Code = iota
	BadRequest      // asking again the same way fails again
	NotOwner        // the answerer no longer owns the shard: ask its successor
	Busy            // the answerer is at its bound: ask again after a pause
	Failed          // something behind the answerer failed: ask again after a pause
)

// Status is part of every reply.
type Status struct {
	Code    Code   `cbor:"1,keyasint,omitempty"`
	Message string `cbor:"2,keyasint,omitempty"`
}

// Errors that Status.Err wraps, one for each Code.
var (
	ErrBadRequest = errors.New("bad request")
	ErrNotOwner   = errors.New("no longer the owner")
	ErrBusy       = errors.New("busy")
	ErrFailed     = errors.New("failed")
)

// Err returns nil for OK, else an error that wraps the Code's sentinel.
func (s Status) Err() error {
	sentinel := ErrFailed
	switch s.Code {
	case OK:
		return nil
	case BadRequest:
		sentinel = ErrBadRequest
	case NotOwner:
		sentinel = ErrNotOwner
	case Busy:
		sentinel = ErrBusy
	}
	return fmt.Errorf("%w: %s", sentinel, s.Message)
}

// StatusOf is the inverse of Err: errors that wrap no sentinel become Failed.
func StatusOf(err error) Status {
	s := Status{Code: Failed}
	switch {
	case err == nil:
		return Status{}
	case errors.Is(err, ErrBadRequest):
		s.Code = BadRequest
	case errors.Is(err, ErrNotOwner):
		s.Code = NotOwner
	case errors.Is(err, ErrBusy):
		s.Code = Busy
	}
	s.Message = err.Error()
	return s
}

func validateLogs(logs []string, limit int) error {
	if len(logs) == 0 || len(logs) > limit {
		return fmt.Errorf("%d logs, want 1 to %d", len(logs), limit)
	}
	for i, log := range logs {
		if err := logid.Validate(log); err != nil {
			return err
		}
		if i > 0 && logs[i-1] >= log {
			return fmt.Errorf("logs out of order: %q after %q", log, logs[i-1])
		}
	}
	return nil
}

// Encode returns the bytes of a message of this package: its CBOR (RFC 8949) form, then a DrainReply's Data.
func Encode(message any) ([]byte, error) {
	data, err := codec.Encode(message)
	if reply, ok := message.(DrainReply); ok && err == nil {
		data = append(slices.Grow(data, len(reply.Data)), reply.Data...)
	}
	return data, err
}

// Decode reads a message of this package into the value that message points to.
func Decode(data []byte, message any) error {
	rest, err := codec.DecodeFirst(data, message)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	if reply, ok := message.(*DrainReply); ok {
		reply.Data = rest
	} else if len(rest) > 0 {
		return fmt.Errorf("%w: decoding %T: %d bytes too many", ErrBadRequest, message, len(rest))
	}
	return nil
}
