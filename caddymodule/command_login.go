package caddymodule

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

func loginCommand() *cobra.Command {
	cmd := adminFlags(&cobra.Command{
		Use:   "login <account>[/<user>] [--paste]",
		Short: "Logs an account in",
		Long: `Logs an account in. A grant that needs no person makes one attempt, whatever was
refused before. For the others a browser is opened where there is one: sign in
there. The answer comes to the portal, or to this command on a loopback address,
as the account's redirect_uri says.

Over SSH use --paste: open the address on any machine, and paste the address of
the page that you end at, even if that page can't be shown.`,
		Example: `  caddy bearer login erp
  ssh -t gateway caddy bearer login erp/ada --paste`,
		RunE:              run(1, login),
		ValidArgsFunction: completeAccounts,
	})
	cmd.Flags().Bool("paste", false, "Take the address that the browser ends at from standard input")
	cmd.Flags().Duration("timeout", 10*time.Minute, "How long to wait for you")
	return cmd
}

func logoutCommand() *cobra.Command {
	return adminFlags(&cobra.Command{
		Use:   "logout <account>[/<user>]",
		Short: "Logs an account out: its tokens are revoked at the server and dropped here",
		Long: `Logs an account out: its tokens are revoked at the server (RFC 7009) and dropped
here. They are dropped even if the server can't be asked; both is told. The
account stays out until it is logged in again.`,
		Example: `  caddy bearer logout erp/ada`,
		RunE: run(1, func(fl caddycmd.Flags, args []string) (int, error) {
			var out logoutJSON
			if err := ask(context.Background(), fl, http.MethodPost, "/bearer/logout", bodyOf(args[0]), &out); err != nil {
				return exitFailed, err
			}
			fmt.Printf("%s has no tokens here any more, and stays out until it is logged in\n", out.Status.name())
			switch {
			case out.Revoked:
				fmt.Println("the server has revoked them")
			case out.Detail != "":
				return exitFailed, errors.New("the server has NOT revoked them: " + out.Detail)
			default:
				fmt.Println("there was nothing to revoke")
			}
			return exitFine, nil
		}),
		ValidArgsFunction: completeAccounts,
	})
}

// bodyOf reads <account>[/<user>].
func bodyOf(arg string) actionJSON {
	account, user, _ := strings.Cut(arg, "/")
	return actionJSON{Account: account, User: user}
}

// A terminalLogin is one run of the command.
type terminalLogin struct {
	fl      caddycmd.Flags
	key     actionJSON
	browser string // proves that the callback comes from who began it
	ctx     context.Context
}

func login(fl caddycmd.Flags, args []string) (int, error) {
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(interrupted, stop) // a second Ctrl-C ends it at once
	ctx, cancel := context.WithTimeout(interrupted, fl.Duration("timeout"))
	defer cancel()
	t := terminalLogin{fl: fl, key: bodyOf(args[0]), browser: rand.Text() + rand.Text(), ctx: ctx}
	one, store, err := t.run()
	switch {
	case err == nil:
		printLogin(os.Stdout, *one, store, time.Now())
		return exitFine, nil
	case interrupted.Err() != nil:
		err = errors.New("interrupted; the server may go on with what was begun: `caddy bearer status` tells")
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("not finished within %s; the server may go on: `caddy bearer status` tells", fl.Duration("timeout"))
	case ctx.Err() != nil:
		err = fmt.Errorf("not finished within %s: %w", fl.Duration("timeout"), err)
	}
	return exitFailed, err
}

// run logs in as the account's grant and redirect URI want it. store is where
// the tokens are.
func (t *terminalLogin) run() (one *accountStatus, store string, err error) {
	var st statusJSON
	uri := "/bearer/status?" + url.Values{"account": {t.key.Account}, "user": {t.key.User}}.Encode()
	if err := ask(t.ctx, t.fl, http.MethodGet, uri, nil, &st); err != nil {
		return nil, "", err
	}
	if len(st.Accounts) != 1 {
		return nil, "", fmt.Errorf("the admin endpoint told of %d accounts in place of one; is it another version of this program?", len(st.Accounts))
	}
	one = &st.Accounts[0]
	switch {
	case one.Grant == (oauth.RefreshToken{}).Type():
		err = errors.New("grant refresh_token can't sign in by itself; give it a refresh token: caddy bearer import " + shellWord(one.name()))
	case one.RedirectURI == "":
		one, err = t.direct()
	case t.fl.Bool("paste"):
		one, err = t.paste()
	case one.Terminal:
		one, err = t.listen(one.RedirectURI)
	default:
		one, err = t.portal(st.Portal, uri, one.SignedIn)
	}
	return one, st.Store, err
}

// begin starts the login at the server.
func (t *terminalLogin) begin(redirectURI string) (began beganJSON, err error) {
	body := loginJSON{actionJSON: t.key, Browser: t.browser, RedirectURI: redirectURI}
	return began, ask(t.ctx, t.fl, http.MethodPost, "/bearer/login", body, &began)
}

// finish hands the callback over.
func (t *terminalLogin) finish(at, query string) (*accountStatus, error) {
	var done beganJSON
	// The code is spent by it: who has come so far isn't cut off.
	err := ask(context.WithoutCancel(t.ctx), t.fl, http.MethodPost, "/bearer/login/finish", loginJSON{Browser: t.browser, At: at, Query: query}, &done)
	return done.Status, err
}

// direct logs in without a callback: by the grant alone, or with a code that
// is entered elsewhere.
func (t *terminalLogin) direct() (*accountStatus, error) {
	began, err := t.begin("")
	if err != nil || began.Done {
		return began.Status, err
	}
	fmt.Printf("Open this address, on any device, and enter the code %s:\n\n%s\n\n", began.UserCode, began.VerificationURI)
	browse(began.VerificationURI) // without the code: other users see arguments
	for pause(t.ctx, time.Second) {
		var now beganJSON
		if err := ask(t.ctx, t.fl, http.MethodPost, "/bearer/login/status", loginJSON{Login: began.Login}, &now); err != nil || now.Done {
			return now.Status, err
		}
	}
	return nil, errors.New("nobody entered the code in time; the server waits for it until it expires, and `caddy bearer status` tells")
}

// paste takes the address that the browser ended at from standard input.
func (t *terminalLogin) paste() (*accountStatus, error) {
	began, err := t.begin("")
	if err != nil {
		return nil, err
	}
	fmt.Printf("Open this address on any machine and sign in there:\n\n%s\n\nThen paste the address of the page that you end at: ", began.URL)
	in, lines := os.Stdin, make(chan string, 1)
	go func() { // reading can't be interrupted
		line, _ := bufio.NewReader(io.LimitReader(in, 64<<10)).ReadString('\n')
		lines <- line
	}()
	select {
	case <-t.ctx.Done():
		fmt.Println()
		return nil, errors.New("no address was pasted in time")
	case line := <-lines:
		fmt.Println()
		if line == "" {
			return nil, errors.New("no address was pasted; paste the whole address, with ?code=…")
		}
		st, err := t.finish(pasted(line))
		if err != nil && isLoginCode(err, oauth.ErrCallbackMalformed) {
			err = fmt.Errorf("%w; paste the whole address that the browser ended at, with ?code=…", err)
		}
		return st, err
	}
}

// portal waits until somebody has logged in on the portal.
func (t *terminalLogin) portal(portal, uri string, before time.Time) (*accountStatus, error) {
	if portal == "" {
		return nil, errors.New("the account's redirect_uri is answered by no portal of this server; use --paste")
	}
	as := ""
	if t.key.User != "" {
		as = " as " + strconv.Quote(t.key.User)
	}
	fmt.Printf("Sign in on the portal%s:\n\n%s\n\nWaiting until you have. (Over SSH, or without the portal: --paste)\n", as, portal)
	browse(portal)
	for pause(t.ctx, time.Second) {
		var st statusJSON
		if err := ask(t.ctx, t.fl, http.MethodGet, uri, nil, &st); err != nil {
			return nil, err
		}
		if st.Accounts[0].SignedIn.After(before) {
			return &st.Accounts[0], nil
		}
	}
	return nil, errors.New("nobody logged in on the portal in time")
}

func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// printLogin tells what was stored, and until when it is good.
func printLogin(w io.Writer, st accountStatus, store string, now time.Time) {
	fmt.Fprintf(w, "%s is logged in\n", st.name())
	if !st.Expires.IsZero() {
		fmt.Fprintf(w, "access token: for %s\n", span(st.Expires.Sub(now)))
	}
	switch {
	case !st.HasRefreshToken:
		fmt.Fprintln(w, "refresh token: none; when the access token ends, log in again")
	case !st.RefreshExpires.IsZero():
		fmt.Fprintf(w, "refresh token: until %s\n", st.RefreshExpires.Format(time.DateOnly))
	default:
		fmt.Fprintln(w, "refresh token: yes; until when, the server doesn't say")
	}
	if st.Unsaved {
		fmt.Fprintln(w, "NOT STORED: the store can't be written; the tokens are in memory only, don't stop the server")
		return
	}
	fmt.Fprintf(w, "stored in: %s\n", store)
}
