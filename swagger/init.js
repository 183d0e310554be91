"use strict";

// Absolute, because the contract names its server relative to its own address.
const contract = new URL("../openapi.json", document.baseURI).href;

window.ui = SwaggerUIBundle({
  url: contract,
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  // By default the document is sent to a public validator.
  validatorUrl: null,
});
