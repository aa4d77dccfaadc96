//go:build !clouds

package archive

// withClouds says whether gs:// and azblob:// can be opened.
const withClouds = false
