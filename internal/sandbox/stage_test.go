package sandbox

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"testing"
)

// Each stage is told of once, and what has happened by then has happened.
func TestGate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		endsAt    Stage
		want      []Stage
		committed bool
		body      string // whole, half or none
	}{
		{"", []Stage{Received, Committed, HalfSent, Sent}, true, "whole"},
		{Received, []Stage{Received}, false, "none"},
		{Committed, []Stage{Received, Committed}, true, "none"},
		{HalfSent, []Stage{Received, Committed, HalfSent}, true, "half"},
	} {
		t.Run(fmt.Sprintf("ends at %q", tt.endsAt), func(t *testing.T) {
			t.Parallel()
			var stages []Stage
			ended := make(chan struct{})
			var s *Sandbox
			s = New(Config{Gate: func(stage Stage, grant string) bool {
				if grant != "password" {
					t.Errorf("grant %q", grant)
				}
				if issued := s.Events()[0].Committed; issued != (stage != Received) {
					t.Errorf("%s: committed is %t", stage, issued)
				}
				stages = append(stages, stage)
				if stage == Sent || stage == tt.endsAt {
					close(ended)
				}
				return stage != tt.endsAt
			}})
			servers, err := s.Listen()
			if err != nil {
				t.Fatal(err)
			}
			body := "none"
			res, err := http.PostForm(servers.AuthorizationServerURL+"/oauth/v2/oauth-token", url.Values{
				"grant_type": {"password"}, "username": {"sandbox-user"}, "password": {"sandbox-password"},
				"client_id": {"sandbox-client"}, "client_secret": {"sandbox-secret"},
			})
			if err == nil {
				text, err := io.ReadAll(res.Body)
				res.Body.Close()
				body = "whole"
				if err != nil {
					body = "half"
				}
				var answer struct {
					RefreshToken string `json:"refresh_token"`
				}
				if whole := json.Unmarshal(text, &answer) == nil; whole != (body == "whole") {
					t.Errorf("%s", text)
				}
				if name := s.TokenName(answer.RefreshToken); body == "whole" && name != "f1.g1" {
					t.Errorf("the refresh token has the name %q", name)
				}
			}
			<-ended
			servers.Close()
			if body != tt.body || !slices.Equal(stages, tt.want) {
				t.Errorf("the answer came %s, after %v", body, stages)
			}
			if e := s.Events()[0]; e.Committed != tt.committed || e.Replied != (tt.body == "whole") {
				t.Errorf("%+v", e)
			}
			if name := s.TokenName("another"); name != "" {
				t.Errorf("an unknown token has the name %q", name)
			}
		})
	}
}
