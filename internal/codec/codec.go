// Package codec is the form of what is kept or sent and is not an entry: CBOR (RFC 8949), within bounds.
package codec

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// decMode bounds what a hostile or damaged message can make the decoder allocate.
var decMode = func() cbor.DecMode {
	mode, err := cbor.DecOptions{MaxArrayElements: 1 << 16, MaxMapPairs: 64, MaxNestedLevels: 8}.DecMode()
	if err != nil {
		panic(err) // constant options
	}
	return mode
}()

// encMode keeps the nanoseconds of times, which CBOR's default encoding of them drops.
var encMode = func() cbor.EncMode {
	mode, err := cbor.EncOptions{Time: cbor.TimeRFC3339Nano}.EncMode()
	if err != nil {
		panic(err) // constant options
	}
	return mode
}()

// Encode returns the bytes of a value.
func Encode(value any) ([]byte, error) { return encMode.Marshal(value) }

// Decode reads what Encode wrote into what value points to, and nothing else may follow.
func Decode(data []byte, value any) error {
	rest, err := DecodeFirst(data, value)
	if err == nil && len(rest) > 0 {
		err = fmt.Errorf("decoding %T: %d bytes too many", value, len(rest))
	}
	return err
}

// DecodeFirst reads a value from the beginning of data and returns what follows it.
func DecodeFirst(data []byte, value any) (rest []byte, err error) {
	rest, err = decMode.UnmarshalFirst(data, value)
	if err != nil {
		return nil, fmt.Errorf("decoding %T: %w", value, err)
	}
	return rest, nil
}
