package wire

import (
	"errors"
	"fmt"
	"slices"
	"strings"

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
	MaxMergeInputs = 256  // segments that one merge reads, and that it writes
	MaxCutText     = 256  // bytes of who asks for a cut, and of its ID
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

// MergeItem is what the merge stream carries: neighbours in age of one shard's tree, oldest first, that are to become
// one run.
type MergeItem struct {
	Shard shardid.Shard      `cbor:"1,keyasint"`
	Epoch uint64             `cbor:"2,keyasint"`
	Level uint8              `cbor:"3,keyasint,omitempty"` // of the inputs, for people
	Runs  [][]extent.Summary `cbor:"4,keyasint"`
	Cuts  extent.Cuts        `cbor:"5,keyasint,omitempty"` // what they cut is left out
	Cut   uint64             `cbor:"6,keyasint,omitempty"` // record of the newest cut that Cuts takes into account
}

// Validate reports what makes the item one that no worker can work on.
func (m MergeItem) Validate() error {
	inputs := 0
	for _, run := range m.Runs {
		for _, s := range run {
			if err := s.Validate(); err != nil {
				return err
			}
		}
		inputs += len(run)
	}
	if least := leastInputs(m.Cut); inputs < least || inputs > MaxMergeInputs {
		return fmt.Errorf("a merge of %d segments, want %d to %d", inputs, least, MaxMergeInputs)
	}
	return nil
}

// leastInputs is how many segments are merged at least: one may be written anew for a cut.
func leastInputs(cut uint64) int {
	if cut > 0 {
		return 1
	}
	return 2
}

// Inputs returns the keys of the item's segments, as a ReplaceRequest names them.
func (m MergeItem) Inputs() (keys []string) {
	for _, run := range m.Runs {
		for _, s := range run {
			keys = append(keys, s.Object.Key)
		}
	}
	return keys
}

// ReplaceRequest offers the outputs of a merge, which are durable in the bucket, for its inputs. Outputs are ascending
// and do not overlap; together they have all that the inputs have and that is not cut.
type ReplaceRequest struct {
	Inputs  []string         `cbor:"1,keyasint"` // keys, as MergeItem.Inputs returns them
	Outputs []extent.Summary `cbor:"2,keyasint"`
	Bucket  string           `cbor:"3,keyasint,omitempty"` // ID of the bucket that has the outputs
	Cut     uint64           `cbor:"4,keyasint,omitempty"` // the item's
	Left    extent.Size      `cbor:"5,keyasint,omitempty"` // what was left out since it is cut
}

// Validate reports what makes the whole request unacceptable.
func (r ReplaceRequest) Validate() error {
	least := leastInputs(r.Cut)
	if len(r.Inputs) < least || len(r.Inputs) > MaxMergeInputs || len(r.Outputs) > MaxMergeInputs {
		return fmt.Errorf("%d segments for %d, want at most %d for at least %d", len(r.Outputs), len(r.Inputs),
			MaxMergeInputs, least)
	}
	for _, s := range r.Outputs {
		if err := errors.Join(s.Validate(), logid.Validate(s.First), logid.Validate(s.Last)); err != nil {
			return err
		}
	}
	return nil
}

// ReplaceReply says whether the outputs are live. BadRequest means that they never will be: the inputs are not live any
// more, or something was wrong with the outputs.
type ReplaceReply struct{ Status }

// SegmentsRequest asks for the live segments that can have logs which are not below From and, unless To is empty, below
// To, in the tree's order, and before them for the cuts of the key range. Offset is how many of both the asker has
// already, of the tree at Version.
type SegmentsRequest struct {
	From    string `cbor:"1,keyasint,omitempty"`
	To      string `cbor:"2,keyasint,omitempty"`
	Offset  int    `cbor:"3,keyasint,omitempty"`
	Version uint64 `cbor:"4,keyasint,omitempty"`
	// MinManifest: answer only from a tree that has the manifest up to this stream sequence.
	MinManifest uint64 `cbor:"5,keyasint,omitempty"`
}

// Validate reports what the owner must refuse.
func (r SegmentsRequest) Validate() error {
	if r.Offset < 0 || len(r.From) > logid.MaxBytes+1 || len(r.To) > logid.MaxBytes+1 {
		return fmt.Errorf("offset %d, bounds of %d and %d bytes", r.Offset, len(r.From), len(r.To))
	}
	return nil
}

// SegmentsReply is one page of segments; More says that another request, with a higher Offset, brings the next. Of a
// tree that is not at the request's Version any more it has nothing but the new one: the asker begins anew.
type SegmentsReply struct {
	Status
	Pieces  []extent.Piece `cbor:"3,keyasint,omitempty"`
	More    bool           `cbor:"4,keyasint,omitempty"`
	Version uint64         `cbor:"5,keyasint,omitempty"` // manifest record that changed the tree last; above 0
	Archive string         `cbor:"6,keyasint,omitempty"` // URL of the bucket as the owner opened it, without secrets
	Stream  string         `cbor:"7,keyasint,omitempty"` // the shard's source stream
	Cuts    extent.Cuts    `cbor:"8,keyasint,omitempty"` // those that cover logs of the key range
}

// CutRequest asks for a cut, or, with Look, what became of one. UpTo 0 is all that the source stream has taken.
type CutRequest struct {
	Cut  extent.Cut `cbor:"1,keyasint"` // Logs, UpTo, Before, ID and By count
	Look bool       `cbor:"2,keyasint,omitempty"`
}

// Validate reports what the owner must refuse.
func (r CutRequest) Validate() error {
	c := r.Cut
	if c.ID == "" || len(c.ID) > MaxCutText || len(c.By) > MaxCutText {
		return fmt.Errorf("a cut with an ID of %d bytes, by somebody with a name of %d", len(c.ID), len(c.By))
	}
	if r.Look || c.Logs == ">" {
		return nil
	}
	log := c.Logs
	if prefix, ok := strings.CutSuffix(log, ".>"); ok {
		log = prefix + ".x"
	}
	for token := range strings.SplitSeq(log, ".") {
		if token == "*" || token == ">" {
			return fmt.Errorf("a cut of %q: a wildcard may only be a > at its end", c.Logs)
		}
	}
	return logid.Validate(log)
}

// CutReply says how far a cut is. Nothing of it is read any more once there is a reply with a Record.
type CutReply struct {
	Status
	Cut      extent.Cut `cbor:"3,keyasint"`           // as it is kept; without a Record there is none, or nothing to cut
	Segments uint64     `cbor:"4,keyasint,omitempty"` // live ones that may have something of it
	Bytes    uint64     `cbor:"5,keyasint,omitempty"` // of their objects
	Pending  uint64     `cbor:"7,keyasint,omitempty"` // sequences up to the cut's that the source stream may have still
	Archive  string     `cbor:"8,keyasint,omitempty"` // URL of the bucket as the owner opened it, without secrets
}

// SweepRequest asks an owner to delete what nothing names now, or with DryRun only to look.
type SweepRequest struct {
	DryRun bool `cbor:"1,keyasint,omitempty"`
	// Young: also what is younger than the grace, if something was cut. Work that is in hand is done again then.
	Young bool `cbor:"2,keyasint,omitempty"`
}

// Validate reports what the owner must refuse.
func (r SweepRequest) Validate() error { return nil }

// SweepReply says what an owner has found of garbage.
type SweepReply struct {
	Status
	Objects uint64 `cbor:"3,keyasint,omitempty"` // deleted, or to be deleted
	Bytes   uint64 `cbor:"4,keyasint,omitempty"`
	Waiting uint64 `cbor:"5,keyasint,omitempty"` // objects that nothing names, and whose grace is not over
	Uncut   uint64 `cbor:"6,keyasint,omitempty"` // live segments that have something of a cut: to be written anew
}

// ListRequest asks for the logs that have buffered entries, whose LogID begins with Prefix and sorts after After.
type ListRequest struct {
	Prefix string `cbor:"1,keyasint,omitempty"`
	After  string `cbor:"2,keyasint,omitempty"`
	Limit  int    `cbor:"3,keyasint,omitempty"` // at most MaxListReplies, which zero means too
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
// next.
type ListReply struct {
	Status
	Logs    []LogInfo `cbor:"3,keyasint,omitempty"` // their buffered parts
	More    bool      `cbor:"4,keyasint,omitempty"`
	Archive string    `cbor:"5,keyasint,omitempty"` // URL of the bucket as the owner opened it, without secrets
}

// LogInfo is what ls and stat show of one log: the archived and the still buffered part.
type LogInfo struct {
	Log      string `cbor:"1,keyasint"`
	Archived Part   `cbor:"2,keyasint"`
	Buffered Part   `cbor:"3,keyasint"`
	Extents  uint64 `cbor:"4,keyasint,omitempty"` // segments that hold it
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
