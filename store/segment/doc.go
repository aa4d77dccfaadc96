// Package segment is the format of an archive object: the extents of many logs in one immutable sorted table, with a
// table of contents, so that the archive describes itself.
//
// A Writer builds a segment in memory; a Reader reads one log of it, its contents, or verifies the whole of it, over
// any Source of ranged reads. The package never opens a bucket or a file, keeps no cache and knows nothing of commits.
//
// Every byte of a segment is under a checksum, so damage is found before it is believed. Forgery is not: whoever may
// write to the bucket can make blocks with fitting checksums that crash a reader.
//
// Open format.go next for the bytes, then writer.go and reader.go; store/bucket for where segments are kept.
package segment

import "errors"

var (
	// ErrCorrupt is wrapped when the bytes of a segment are not what a Writer made. The error names the object.
	ErrCorrupt = errors.New("corrupt segment")
	// ErrOrder is wrapped when an added entry does not sort after the one before. The Writer stays usable.
	ErrOrder = errors.New("entries out of order")
	// ErrEmpty is returned by Finish when nothing was added: there is no empty segment.
	ErrEmpty = errors.New("segment without entries")
	// ErrFinished is returned for any use of a Writer after Finish or Close.
	ErrFinished = errors.New("segment is already finished")
)
