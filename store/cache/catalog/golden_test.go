package catalog

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"dormouse/internal/extent"
	"dormouse/internal/golden"
)

// TestGoldenRows: rows of the catalog, and parts of snapshots, are read whichever version wrote them; of an unknown
// version they are refused.
func TestGoldenRows(t *testing.T) {
	want := extent.Located{
		Extent: extent.Extent{Log: "tenant.log", First: 7, Last: 300, Count: 12, Bytes: 5000,
			MinTime: 1_700_000_000_000_000_000, MaxTime: 1_700_000_005_000_000_000},
		Segment: extent.Segment{Key: "0/one.sst", Size: 123456},
	}
	row := RowOf(want.Extent, want.Segment)
	row.Value = golden.Bytes(t, "row", row.Value)
	if got, err := row.Located(); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("a row is read as %+v, %v, want %+v", got, err, want)
	}
	var today []byte
	err := WriteParts(func(yield func(Row, error) bool) { yield(row, nil) }, func(part []byte) error {
		today = part
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	kept := golden.Bytes(t, "part", today)
	n := 0
	for got, err := range Rows(kept) {
		if n++; err != nil || !reflect.DeepEqual(got, row) {
			t.Errorf("row %d of a part is read as %+v, %v, want %+v", n, got, err, row)
		}
	}
	if n != 1 {
		t.Errorf("a part has %d rows", n)
	}
	row.Value[0]++
	if _, err := row.Located(); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "version") {
		t.Errorf("a row of another version: %v", err)
	}
	kept[0]++
	for _, err := range Rows(kept) {
		if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "version") {
			t.Errorf("a part of another version: %v", err)
		}
	}
}
