package caddymodule

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-bearer/caddy-bearer/internal/oauth"
)

// maxUsersListed is how many users one answer has at most.
const maxUsersListed = 1000

// serveUsers is GET /bearer/users: the condition of an account or of one of its
// users as statusJSON, or, for an account with sessions per user, of those of
// its stored users that come after a name, in order and up to a limit.
func serveUsers(w http.ResponseWriter, r *http.Request) error {
	app, err := inForce()
	if err != nil {
		return err
	}
	query := r.URL.Query()
	limit, err := listLimit(query)
	if err != nil {
		return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: err}
	}
	answer := app.statusOfStore()
	answer.Accounts = []accountStatus{}
	key := oauth.Key{Account: query.Get("account"), User: query.Get("user")}
	keys := []oauth.Key{key}
	if own := app.shared.sessions.All()[key.Account]; own != nil && own.Account().PerUser && key.User == "" {
		users, err := app.shared.sessions.Users(r.Context(), key.Account)
		if err != nil {
			return storeError(err)
		}
		total := len(users)
		answer.Total = &total
		keys, answer.Next = page(key.Account, users, query.Get("after"), limit)
	}
	for _, key := range keys {
		one, err := app.describeOne(r.Context(), key)
		if err != nil {
			return noSession(key, err)
		}
		answer.Accounts = append(answer.Accounts, one)
	}
	return writeJSON(w, answer)
}

func listLimit(query url.Values) (int, error) {
	text := cmp.Or(query.Get("limit"), "100")
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > maxUsersListed {
		return 0, fmt.Errorf("limit: it must be a number from 0 to %d", maxUsersListed)
	}
	return n, nil
}

// page picks the users after a name, and says after which one the next page
// begins; empty if there is none.
func page(account string, users []string, after string, limit int) (keys []oauth.Key, next string) {
	slices.Sort(users)
	from, found := slices.BinarySearch(users, after)
	if found {
		from++
	}
	left := users[from:]
	for _, user := range left[:min(limit, len(left))] {
		keys = append(keys, oauth.Key{Account: account, User: user})
		next = user
	}
	if len(left) <= limit {
		next = ""
	}
	return keys, next
}
