locals {
  whole_stack = var.existing_cluster_name == null && !var.storage_only
  registry    = local.whole_stack && var.image_repository == null

  # The new cluster, the existing one or null.
  cluster_arn  = one(concat(module.cluster[*].arn, data.aws_eks_cluster.existing[*].arn))
  cluster_name = var.storage_only ? null : coalesce(var.existing_cluster_name, var.name)
}

data "aws_eks_cluster" "existing" {
  count = var.existing_cluster_name == null ? 0 : 1

  name = var.existing_cluster_name
}

module "network" {
  source = "./modules/network"
  count  = local.whole_stack ? 1 : 0

  name                 = var.name
  cidr                 = var.vpc_cidr
  nat_gateway_per_zone = var.nat_gateway_per_zone
  log_retention_days   = var.log_retention_days
}

module "cluster" {
  source = "./modules/cluster"
  count  = local.whole_stack ? 1 : 0

  name                = var.name
  kubernetes_version  = var.kubernetes_version
  deletion_protection = var.deletion_protection
  subnet_ids          = module.network[0].private_subnet_ids
  admin_arns          = var.cluster_admin_arns
  namespace           = var.namespace
  namespace_access    = var.namespace_access
  api_cidrs           = var.cluster_api_cidrs
  log_retention_days  = var.log_retention_days
}

module "registry" {
  source = "./modules/registry"
  count  = local.registry ? 1 : 0

  name                = var.name
  deletion_protection = var.deletion_protection
}

module "storage" {
  source = "./modules/storage"

  name                = var.name
  deletion_protection = var.deletion_protection
  noncurrent_days     = var.avatar_noncurrent_days
}

module "identity" {
  source = "./modules/identity"
  count  = var.storage_only ? 0 : 1

  name            = var.name
  cluster_arn     = local.cluster_arn
  namespace       = var.namespace
  service_account = var.service_account
  table_arn       = module.storage.table_arn
  bucket_arn      = module.storage.bucket_arn
}

module "domain" {
  source = "./modules/domain"
  count  = var.domain == null ? 0 : 1

  name         = var.domain.name
  zone_id      = var.domain.zone_id
  cluster_name = local.cluster_name
  ingress      = "${var.namespace}/roster"
}
