package store

import "context"

// UseKeys replaces the keys as SetKeys does, if they open every entry;
// otherwise it changes nothing and returns the error of Check.
func (s *Sealed) UseKeys(ctx context.Context, keys Keys) error {
	if err := NewSealed(s.inner, keys).Check(ctx); err != nil {
		return err
	}
	s.SetKeys(keys)
	return nil
}
