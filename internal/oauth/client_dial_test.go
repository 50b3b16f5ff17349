package oauth

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
)

// left is how many spare descriptors there are.
func (d *sparingDialer) left() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.spare)
}

func TestSparingDialer(t *testing.T) {
	t.Parallel()
	newDialer := func(dial func(n int) error) (d *sparingDialer, dials *int) {
		dials = new(int)
		d = &sparingDialer{turn: make(chan struct{}, 1)}
		d.dial = func(context.Context, string, string) (net.Conn, error) {
			*dials++
			if err := dial(*dials); err != nil {
				return nil, err
			}
			a, b := net.Pipe()
			t.Cleanup(func() { _, _ = a.Close(), b.Close() })
			return a, nil
		}
		t.Cleanup(d.release)
		return d, dials
	}
	full := &net.OpError{Op: "dial", Err: syscall.EMFILE}
	t.Run("none is left: once more, with all spares and nobody taking them back", func(t *testing.T) {
		t.Parallel()
		var d *sparingDialer
		d, dials := newDialer(func(n int) error {
			if n == 1 {
				return full
			}
			if d.reserve(); d.left() != 0 { // as another connection that is closed does
				t.Errorf("%d spares are held during the dial", d.left())
			}
			return nil
		})
		conn, err := d.DialContext(t.Context(), "tcp", "as.test:443")
		if err != nil || *dials != 2 || d.left() != spares {
			t.Errorf("%d dials, %v; %d spares", *dials, err, d.left())
		}
		d.release()
		d.lent = false
		_ = conn.Close()
		if d.left() != spares {
			t.Errorf("%d spares after the connection is closed", d.left())
		}
	})
	t.Run("none is left even so", func(t *testing.T) {
		t.Parallel()
		d, dials := newDialer(func(int) error { return full })
		if _, err := d.DialContext(t.Context(), "tcp", "as.test:443"); !errors.Is(err, syscall.EMFILE) || *dials != 2 || d.left() != spares {
			t.Errorf("%d dials, %v; %d spares", *dials, err, d.left())
		}
	})
	for name, err := range map[string]error{"nobody listens": syscall.ECONNREFUSED, "none": nil} {
		t.Run("another error: "+name, func(t *testing.T) {
			t.Parallel()
			d, dials := newDialer(func(int) error { return err })
			if _, got := d.DialContext(t.Context(), "tcp", "as.test:443"); !errors.Is(got, err) || *dials != 1 || d.left() != spares {
				t.Errorf("%d dials, %v; %d spares", *dials, got, d.left())
			}
		})
	}
}
