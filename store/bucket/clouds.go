//go:build clouds

package bucket

import (
	// Drivers, by the scheme of their URLs. They are a third of all packages that the program is made of, so only released
	// binaries have them.
	_ "gocloud.dev/blob/azureblob"
	_ "gocloud.dev/blob/gcsblob"
)

// withClouds says whether gs:// and azblob:// can be opened.
const withClouds = true
