"use strict";

// A response table with ten errors hides the one response that matters.
const foldErrors = (Responses, { React }) => (props) => {
  const failed = (_, status) => status >= "400";
  const errors = props.responses.filter(failed);
  return React.createElement(
    "div",
    null,
    React.createElement(Responses, { ...props, responses: props.responses.filterNot(failed) }),
    errors.size > 0 &&
      React.createElement(
        "details",
        { className: "errors" },
        React.createElement("summary", null, "Errors: " + errors.keySeq().join(", ")),
        React.createElement(Responses, { ...props, responses: errors, tryItOutResponse: undefined }),
      ),
  );
};

const hidden = () => () => null;

(async () => {
  // Without tokens on, there is nothing to authorize.
  const open = await fetch("../users?limit=1", { method: "HEAD" }).then((r) => r.ok, () => false);
  window.ui = SwaggerUIBundle({
    // Absolute, because the contract names its server relative to its own address.
    url: new URL("../openapi.yaml", document.baseURI).href,
    dom_id: "#swagger-ui",
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    displayRequestDuration: true,
    plugins: [
      { wrapComponents: { responses: foldErrors, ...(open && { authorizeBtn: hidden, authorizeOperationBtn: hidden }) } },
    ],
    // By default the document is sent to a public validator.
    validatorUrl: null,
  });
})();
