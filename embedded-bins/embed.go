// Package embeddedbins carries what the k0s executable brings along for the host: the
// helper programs and the images of the system pods, as `make embedded-bins` packed them.
package embeddedbins

import "embed"

// Assets holds the directory "assets": index.json and the archives it names. A build from
// a checkout in which nothing has been packed yet holds only a README; package
// internal/assets reads this and says so.
//
//go:embed all:assets
var Assets embed.FS
