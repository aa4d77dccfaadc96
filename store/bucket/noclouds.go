//go:build !clouds

package bucket

// withClouds says whether gs:// and azblob:// can be opened.
const withClouds = false
