// Package golden holds bytes that are kept or sent against files in testdata, so that a change of a format is seen, and
// what an earlier version wrote is still read. It is imported by tests only.
//
// A file is a dump in hexadecimal, for people to read in a change. `go test -update` writes them anew.
package golden

import (
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write what is generated anew: golden files, docs/metrics.md, the flags in "+
	"README.md")

// Update reports whether files are to be written rather than compared.
func Update() bool { return *update }

// Bytes returns what testdata/name.golden holds, after comparing it with what is written today.
func Bytes(t *testing.T, name string, today []byte) []byte {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(hex.Dump(today)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if dump := hex.Dump(today); dump != string(text) {
		t.Errorf("%s: what is written today is another one:\n%sIf that is meant, give the format a new version, keep "+
			"the file, and add one", file, dump)
	}
	return parse(t, string(text))
}

// Kept returns what testdata/name.golden holds, of a version that is not written any more.
func Kept(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".golden"))
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(text))
}

// parse reads a dump.
func parse(t *testing.T, dump string) (data []byte) {
	t.Helper()
	for line := range strings.Lines(dump) {
		_, columns, _ := strings.Cut(line, "  ")
		columns, _, _ = strings.Cut(columns, "|")
		row, err := hex.DecodeString(strings.Join(strings.Fields(columns), ""))
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, row...)
	}
	return data
}

// Fill sets every exported field of what pointer points to, and of what is in it, to values that tell the fields apart.
// It panics at a kind of field that no message has.
func Fill(pointer any) {
	n := 0
	fill(reflect.ValueOf(pointer).Elem(), &n)
}

var moment = time.Date(2026, 11, 26, 12, 0, 0, 123456789, time.UTC)

func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("text" + string(rune('a'+*n%26)))
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), n)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(moment.Add(time.Duration(*n) * time.Second)))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i), n)
			}
		}
	default:
		panic("golden: a field of kind " + v.Kind().String())
	}
}
