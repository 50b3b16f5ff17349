// Package store keeps sessions: in a bbolt file ([Bolt]) or in memory
// ([Memory]), and sealed with AES-256-GCM whatever the engine ([Sealed]). All
// three implement [oauth.Store]; package storetest holds the suite that every
// implementation has to pass.
package store
