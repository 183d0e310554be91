// The tour with a client that oapi-codegen generated. Arguments: the URL of the service, and a PNG.
package main

import (
	"bytes"
	"context"
	"log"
	"mime/multipart"
	"net/http"
	"os"

	client "roster/tools/clients/oapi"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("oapi-codegen: ")
	ctx := context.Background()
	picture := must(os.ReadFile(os.Args[2]))
	c := must(client.NewClientWithResponses(os.Args[1]))

	ada := client.NewUser{Name: "Ada", Email: "ada@oapi.example"}
	created := must(c.CreateUserWithResponse(ctx, ada))
	check("create", created.JSON201 != nil && created.JSON201.Name == "Ada" && created.Headers201.Location != "")
	id := created.JSON201.Id

	again := must(c.CreateUserWithResponse(ctx, ada)).ApplicationproblemJSON409
	check("create again", again != nil && again.Type == client.EmailTakenTypeUrnRosterProblemEmailTaken)

	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	check("form", w.WriteField("email", string(ada.Email)) == nil)
	must(must(w.CreateFormFile("avatar", "ada.png")).Write(picture))
	check("form", w.Close() == nil)
	uploaded := must(c.UploadAvatarWithBodyWithResponse(ctx, w.FormDataContentType(), &form))
	check("upload by form", uploaded.JSON200 != nil && uploaded.JSON200.AvatarUrl != nil)

	put := must(c.PutAvatarWithBodyWithResponse(ctx, id, nil, "image/png", bytes.NewReader(picture)))
	check("upload by PUT", put.JSON200 != nil && *put.JSON200.AvatarUrl != *uploaded.JSON200.AvatarUrl)

	must(c.CreateUserWithResponse(ctx, client.NewUser{Name: "Grace", Email: "grace@oapi.example"}))
	limit := 1
	list := must(c.ListUsersWithResponse(ctx, &client.ListUsersParams{Limit: &limit}))
	check("list", list.JSON200 != nil && len(*list.JSON200) == 1 && list.Headers200.Link != nil)

	image := must(c.GetAvatarWithResponse(ctx, id, nil))
	check("image", bytes.Equal(image.Body, picture) && image.Headers200.AcceptRanges == "bytes")
	check("thumbnail", len(must(c.GetThumbnailWithResponse(ctx, id, nil)).Body) > 0)

	found := must(c.GetUserWithResponse(ctx, id, nil))
	match := client.RenameUserParams{IfMatch: found.Headers200.ETag}
	change := client.UserChange{Name: "Ada King"}
	renamed := must(c.RenameUserWithResponse(ctx, id, &match, change))
	check("rename", renamed.JSON200 != nil && renamed.JSON200.Name == "Ada King")
	failed := must(c.RenameUserWithResponse(ctx, id, &match, change))
	check("rename with the old ETag", failed.ApplicationproblemJSON412 != nil)

	deleted := must(c.DeleteUserWithResponse(ctx, id, nil))
	check("delete", deleted.StatusCode() == http.StatusNoContent)
	check("get after delete", must(c.GetUserWithResponse(ctx, id, nil)).ApplicationproblemJSON404 != nil)
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func check(step string, ok bool) {
	if !ok {
		log.Fatalf("%s: another response than the contract has", step)
	}
}
