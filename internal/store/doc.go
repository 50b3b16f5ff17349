// Package store keeps sessions: [Durable] in a bbolt file and once more in a
// spill, sealed with AES-256-GCM; [Memory] until the process ends. Both
// implement [oauth.Store]; package storetest holds the suite that every
// implementation has to pass.
package store
