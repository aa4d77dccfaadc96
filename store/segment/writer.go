package segment

import (
	"bytes"
	"fmt"
	"math"
	"strings"

	"github.com/cockroachdb/pebble/v2/sstable"

	"dormouse/internal/entry"
	"dormouse/internal/extent"
	"dormouse/internal/logid"
)

// DefaultBlockSize is the uncompressed size of a data block, in bytes: what reading one short log costs, against how
// well its neighbours compress.
const DefaultBlockSize = 32 << 10

// Options are the choices of a Writer. The zero value is the default.
type Options struct {
	Compression string // "zstd" (the default when empty), "snappy" or "none"
	BlockSize   int    // uncompressed bytes of a data block; 0 means DefaultBlockSize
}

func (o Options) writerOptions() (sstable.WriterOptions, error) {
	opts := sstable.WriterOptions{
		TableFormat:        tableFormat,
		BlockSize:          o.BlockSize,
		IndexBlockSize:     math.MaxInt32, // one index level: a reader then has the whole index with the segment's end
		DisableValueBlocks: true,
	}
	if o.BlockSize <= 0 {
		opts.BlockSize = DefaultBlockSize
	}
	switch strings.ToLower(o.Compression) {
	case "", "zstd":
		opts.Compression = zstdProfile()
	case "snappy":
		opts.Compression = sstable.SnappyCompression
	case "none":
		opts.Compression = sstable.NoCompression
	default:
		return opts, fmt.Errorf("segment compression %q is not known: use zstd, snappy or none", o.Compression)
	}
	return opts, nil
}

// zstdProfile compresses entries with zstd's first level, which on log lines writes half as much again in the same time
// as the library's default, the third, for 3% more bytes. The index and the properties, which every read decompresses
// whole, are for snappy: without cgo that halves the time to open a segment and read a short log, for a few hundred
// bytes more.
func zstdProfile() *sstable.CompressionProfile {
	profile := *sstable.ZstdCompression
	profile.DataBlocks = sstable.BalancedCompression.DataBlocks
	profile.OtherBlocks = sstable.SnappyCompression.OtherBlocks
	return &profile
}

// Writer builds one segment in memory. The caller bounds it by asking Size. A Writer has a goroutine that compresses
// blocks until Finish or Close, one of which must be called. It is for one goroutine at a time.
type Writer struct {
	out     buffer
	table   *sstable.Writer // nil after Finish or Close
	last    []byte          // key of the newest entry
	extents []extent.Extent // one per log, ascending; the last one is still growing
	rows    int             // estimated bytes of the table of contents
}

// NewWriter starts a segment. The error says which option is wrong.
func NewWriter(opts Options) (*Writer, error) {
	o, err := opts.writerOptions()
	if err != nil {
		return nil, err
	}
	w := &Writer{}
	w.table = sstable.NewWriter(&w.out, o)
	return w, nil
}

// Add appends one entry as encoded by internal/entry; it keeps neither slice. Keys must ascend, else the error wraps
// ErrOrder. An entry that does not decode is refused with an error that wraps entry.ErrCorrupt. After a refusal the
// Writer goes on as if the entry had not been offered.
func (w *Writer) Add(key, value []byte) error {
	if w.table == nil {
		return ErrFinished
	}
	log, seq, err := entry.SplitKey(key)
	if err != nil {
		return err
	}
	at, size, err := entry.Measure(value)
	if err != nil {
		return fmt.Errorf("entry %d of %s: %w", seq, log, err)
	}
	if bytes.Compare(key, w.last) <= 0 {
		return fmt.Errorf("%w: %q after %q", ErrOrder, key, w.last)
	}
	if err := w.selectExtent(log, seq); err != nil {
		return err
	}
	if err := w.table.Set(key, value); err != nil {
		return fmt.Errorf("write segment: %w", err)
	}
	w.extents[len(w.extents)-1].Add(seq, at, size)
	w.last = append(w.last[:0], key...)
	return nil
}

// selectExtent makes the last extent that of log.
func (w *Writer) selectExtent(log []byte, seq uint64) error {
	if n := len(w.extents); n > 0 && w.extents[n-1].Log == string(log) {
		return nil
	}
	if seq == 0 {
		return fmt.Errorf("%w: %s has an entry with sequence 0", extent.ErrInvalid, log)
	}
	id := string(log)
	if err := logid.Validate(id); err != nil {
		return err
	}
	w.extents = append(w.extents, extent.Extent{Log: id})
	w.rows += len(id) + 40
	return nil
}

// Size returns about how large the segment would be, in bytes, if it were finished now. The blocks that are not
// compressed yet count in full, so Size is rather too high than too low; it may shrink a little from call to call.
func (w *Writer) Size() int {
	if w.table == nil {
		return w.out.Len()
	}
	return int(w.table.Raw().EstimatedSize()) + w.rows
}

// Extents returns the number of logs so far.
func (w *Writer) Extents() int { return len(w.extents) }

// Finish writes the table of contents and returns the whole segment and its extents, ascending by log. Both belong to
// the caller. The error is ErrEmpty when nothing was added.
func (w *Writer) Finish() (data []byte, extents []extent.Extent, err error) {
	if w.table == nil {
		return nil, nil, ErrFinished
	}
	if len(w.extents) == 0 {
		w.Close()
		return nil, nil, ErrEmpty
	}
	err = w.writeContents()
	table := w.table
	w.table = nil
	if cerr := table.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, nil, fmt.Errorf("finish segment: %w", err)
	}
	return w.out.Bytes(), w.extents, nil
}

func (w *Writer) writeContents() error {
	var sum totals
	key, row := []byte{contentsPrefix}, []byte(nil)
	for _, e := range w.extents {
		sum.add(e)
		key, row = append(key[:1], e.Log...), appendExtent(row[:0], e)
		if err := w.table.Set(key, row); err != nil {
			return err
		}
	}
	return w.table.Set(sealKey, appendTotals(row[:0], sum))
}

// Close drops an unfinished segment and ends the Writer's goroutine. After Finish it does nothing.
func (w *Writer) Close() {
	if w.table == nil {
		return
	}
	_ = w.table.Close() // it only writes to memory that nobody will see
	w.table, w.extents = nil, nil
	w.out.Abort()
}

// buffer receives the table's bytes.
type buffer struct{ bytes.Buffer }

// Write implements objstorage.Writable.
func (b *buffer) Write(p []byte) error {
	_, err := b.Buffer.Write(p)
	return err
}

// Finish implements objstorage.Writable; memory needs no flush.
func (b *buffer) Finish() error { return nil }

// Abort implements objstorage.Writable.
func (b *buffer) Abort() { b.Buffer = bytes.Buffer{} }
