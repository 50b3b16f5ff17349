package oauth

import "unsafe"

// PastBytes is what the history of a session takes at most, without the texts,
// which the failures share. The happenings grow in doubles.
const PastBytes = unsafe.Sizeof(past{}) + 16*unsafe.Sizeof(happened{})
