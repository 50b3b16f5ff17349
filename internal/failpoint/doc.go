// Package failpoint marks points at which a test kills the process, to see
// what the next one makes of what is left.
//
// Only a build with the tag failpoint has them; in any other, the package
// leaves nothing behind. There, the environment variable CADDY_BEARER_FAILPOINT
// names a file, which holds the name of the point to die at. It is read at each
// point, so that a point can be armed while the process runs: "name" is the
// next time that the point is reached, "name#3" the third time from now.
package failpoint
