package interop

import (
	"html/template"
	"net/http"

	"github.com/ory/fosite"
)

// page asks a person to sign in and to consent; what the client asked for stays
// in the query.
var page = template.Must(template.New("").Parse(`<!DOCTYPE html>
<title>Sign in</title>
<h1>{{.Client}} wants: {{range .Scopes}}{{.}} {{end}}</h1>
{{with .Error}}<p>{{.}}</p>{{end}}
<form method="post" action="authorize?{{.Query}}">
<input type="hidden" name="consent" value="yes">
<input name="username" autocomplete="username">
<input type="password" name="password" autocomplete="current-password">
<button>Sign in and allow</button>
</form>
<a href="cancel?{{.Query}}">Cancel</a>
`))

// request reads the authorization request in the query. If it can't be served,
// it is answered: at the redirect URI, or with a page if that can't be trusted.
func (s *Server) request(w http.ResponseWriter, r *http.Request) (fosite.AuthorizeRequester, bool) {
	// fosite would take the form's fields for parameters.
	query := r.Clone(r.Context())
	query.Method, query.Body, query.Form, query.PostForm = http.MethodGet, http.NoBody, nil, nil
	s.mu.Lock()
	defer s.mu.Unlock()
	req, err := s.provider.NewAuthorizeRequest(r.Context(), query)
	if err != nil {
		s.provider.WriteAuthorizeError(r.Context(), w, req, err)
		return nil, false
	}
	return req, true
}

func (s *Server) showSignIn(w http.ResponseWriter, r *http.Request) {
	if req, ok := s.request(w, r); ok {
		s.show(w, r, req, "")
	}
}

func (s *Server) show(w http.ResponseWriter, r *http.Request, req fosite.AuthorizeRequester, problem string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = page.Execute(w, map[string]any{
		"Client": req.GetClient().GetID(), "Scopes": req.GetRequestedScopes(),
		"Query": template.URL(r.URL.RawQuery), "Error": problem,
	})
}

func (s *Server) signIn(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	req, ok := s.request(w, r)
	if !ok {
		return
	}
	c := s.config
	if r.PostFormValue("username") != c.Username || r.PostFormValue("password") != c.Password || r.PostFormValue("consent") != "yes" {
		s.show(w, r, req, "Wrong name or password.")
		return
	}
	for _, scope := range req.GetRequestedScopes() {
		req.GrantScope(scope)
	}
	s.mu.Lock()
	res, err := s.provider.NewAuthorizeResponse(r.Context(), req, session(c.Username))
	s.mu.Unlock()
	if err != nil {
		s.provider.WriteAuthorizeError(r.Context(), w, req, err)
		return
	}
	s.provider.WriteAuthorizeResponse(r.Context(), w, req, res)
}

func (s *Server) cancel(w http.ResponseWriter, r *http.Request) {
	if req, ok := s.request(w, r); ok {
		s.provider.WriteAuthorizeError(r.Context(), w, req, fosite.ErrAccessDenied)
	}
}
