package sandbox

import (
	"bytes"
	"html/template"
	"net/http"
	"strconv"
)

// pages are what a person sees. They have no script, no address and nothing
// from elsewhere; a form posts to the page's own URL.
var pages = template.Must(template.New("").Parse(`
{{- define "head"}}<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{{.}}</title></head>
<body>
<h1>{{.}}</h1>
{{end}}
{{- define "login"}}{{template "head" "Log in"}}<p>{{.Client}} asks for access.</p>
{{if .Message}}<p role="alert">{{.Message}}</p>
{{end}}<form method="post">
{{if .Device}}<p><label>Code <input name="user_code" value="{{.UserCode}}" autocomplete="off"></label></p>
{{end}}<p><label>User <input name="username" autocomplete="username" autofocus></label></p>
<p><label>Password <input name="password" type="password" autocomplete="current-password"></label></p>
<p><button>Log in and allow</button> <button name="deny" value="1">Deny</button></p>
</form>
</body>
</html>
{{end}}
{{- define "message"}}{{template "head" .Title}}<p>{{.Message}}</p>
</body>
</html>
{{end}}`))

type loginForm struct {
	Client, Message string
	Device          bool
	UserCode        string
}

func loginPage(w http.ResponseWriter, status int, client, message string) {
	sendPage(w, status, "login", loginForm{Client: client, Message: message})
}

func messagePage(w http.ResponseWriter, status int, title, message string) {
	sendPage(w, status, "message", struct{ Title, Message string }{title, message})
}

func errorPage(w http.ResponseWriter, status int, message string) {
	messagePage(w, status, "This request can't be carried out", message)
}

func sendPage(w http.ResponseWriter, status int, name string, data any) {
	var body bytes.Buffer
	if err := pages.ExecuteTemplate(&body, name, data); err != nil {
		panic(err) // the templates and their data are our own
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'; base-uri 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes()) // the exchange notes a client that has gone
}
