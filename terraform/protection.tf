# Terraform destroys a resource before what it depends on. This one depends on every
# module, so if its provisioner fails, nothing is destroyed. The triggers replace it, and
# so protect the stack, when a change of a variable would remove or replace most of it.
resource "terraform_data" "deletion_protection" {
  input = var.deletion_protection

  triggers_replace = {
    region                = var.region
    name                  = var.name
    existing_cluster_name = var.existing_cluster_name
    storage_only          = var.storage_only
    vpc_cidr              = var.vpc_cidr
    registry              = var.image_repository == null
  }

  depends_on = [
    module.network,
    module.cluster,
    module.registry,
    module.storage,
    module.identity,
    module.domain,
  ]

  provisioner "local-exec" {
    when    = destroy
    command = self.input ? "echo deletion_protection is on, nothing was destroyed. Apply deletion_protection=false first. && exit 1" : "exit 0"
  }
}
