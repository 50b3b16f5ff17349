package store

import "path/filepath"

// CheckFS returns an error if the database of a place would be on the file
// system of a network, where [Open] refuses it unless NetworkFS is set. It
// opens and makes nothing.
func CheckFS(p Place) error { return checkFS(filepath.Dir(p.Database)) }
