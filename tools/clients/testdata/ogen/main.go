// The tour with a client that ogen generated. Arguments: the URL of the service, and a PNG.
package main

import (
	"bytes"
	"context"
	"io"
	"log"
	"os"

	"github.com/google/uuid"
	ht "github.com/ogen-go/ogen/http"
	"github.com/ogen-go/ogen/ogenerrors"

	client "roster/tools/clients/ogen"
)

// noToken is for an installation without tokens.
type noToken struct{}

func (noToken) BearerAuth(context.Context, client.OperationName) (client.BearerAuth, error) {
	return client.BearerAuth{}, ogenerrors.ErrSkipClientSecurity
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("ogen: ")
	ctx := context.Background()
	picture := must(os.ReadFile(os.Args[2]))
	c := must(client.NewClient(os.Args[1], noToken{}))

	ada := &client.CreateUserApplicationJSON{Name: "Ada", Email: "ada@ogen.example"}
	created := as[*client.UserHeaders]("create")(c.CreateUser(ctx, ada))
	check("create", created.Response.Name == "Ada" && created.Location != "")
	id := client.GetUserParams{ID: uuid.UUID(created.Response.ID)}

	again := as[*client.EmailTakenHeaders]("create again")(c.CreateUser(ctx, ada))
	check("create again", again.Response.Type == client.EmailTakenTypeUrnRosterProblemEmailTaken &&
		again.Location == created.Location)

	form := client.AvatarFormMultipart{Email: client.NewOptString("ada@ogen.example")}
	form.Avatar = ht.MultipartFile{Name: "ada.png", File: bytes.NewReader(picture)}
	uploaded := as[*client.UserWithImageHeaders]("upload by form")(c.UploadAvatar(ctx, &form))
	check("upload by form", uploaded.Response.AvatarURL.Set)

	body := &client.PutAvatarReqApplicationOctetStream{Data: bytes.NewReader(picture)}
	put := as[*client.UserWithImageHeaders]("upload by PUT")(c.PutAvatar(ctx, body, client.PutAvatarParams{ID: id.ID}))
	check("upload by PUT", put.Response.AvatarURL != uploaded.Response.AvatarURL)

	grace := &client.CreateUserApplicationJSON{Name: "Grace", Email: "grace@ogen.example"}
	as[*client.UserHeaders]("create another")(c.CreateUser(ctx, grace))
	page := client.ListUsersParams{Limit: client.NewOptInt(1)}
	list := as[*client.ListUsersOKHeaders]("list")(c.ListUsers(ctx, page))
	check("list", len(list.Response) == 1 && list.Link.Set)

	image := as[*client.ImageContentImagePNGHeaders]("image")(c.GetAvatar(ctx, client.GetAvatarParams{ID: id.ID}))
	check("image", bytes.Equal(must(io.ReadAll(image.Response)), picture))
	thumbnail := as[*client.ThumbnailImageJpegHeaders]("thumbnail")(c.GetThumbnail(ctx,
		client.GetThumbnailParams{ID: id.ID}))
	check("thumbnail", len(must(io.ReadAll(thumbnail.Response))) > 0)

	found := as[*client.OneUserHeaders]("get")(c.GetUser(ctx, id))
	change := &client.RenameUserApplicationJSON{Name: "Ada King"}
	match := client.RenameUserParams{ID: id.ID, IfMatch: found.ETag}
	renamed := as[*client.OneUserHeaders]("rename")(c.RenameUser(ctx, change, match))
	check("rename", renamed.Response.Name == "Ada King")
	as[*client.PreconditionFailedHeaders]("rename with the old ETag")(c.RenameUser(ctx, change, match))

	as[*client.Deleted]("delete")(c.DeleteUser(ctx, client.DeleteUserParams{ID: id.ID}))
	as[*client.NotFoundHeaders]("get after delete")(c.GetUser(ctx, id))
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

// as requires a response of type T.
func as[T any](step string) func(response any, err error) T {
	return func(response any, err error) T {
		if err != nil {
			log.Fatalf("%s: %v", step, err)
		}
		typed, ok := response.(T)
		if !ok {
			log.Fatalf("%s: response %T: %[2]v", step, response)
		}
		return typed
	}
}
