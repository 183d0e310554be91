data "aws_partition" "current" {}

data "aws_caller_identity" "current" {}

data "aws_region" "current" {}

# EKS Auto Mode: AWS creates, patches, replaces and scales the nodes, and provides pod
# networking, DNS, load balancers, volumes and the Pod Identity Agent.
# https://docs.aws.amazon.com/eks/latest/userguide/automode.html
resource "aws_eks_cluster" "control_plane" {
  #checkov:skip=CKV_AWS_339:checkov knows no version newer than 1.35; the variable validates it
  name                      = var.name
  role_arn                  = aws_iam_role.control_plane.arn
  version                   = var.kubernetes_version
  deletion_protection       = var.deletion_protection
  enabled_cluster_log_types = ["api", "audit", "authenticator", "controllerManager", "scheduler"]

  # Auto Mode replaces vpc-cni, kube-proxy and coredns.
  bootstrap_self_managed_addons = false

  compute_config {
    enabled       = true
    node_pools    = ["general-purpose", "system"]
    node_role_arn = aws_iam_role.nodes.arn
  }

  kubernetes_network_config {
    elastic_load_balancing {
      enabled = true
    }
  }

  storage_config {
    block_storage {
      enabled = true
    }
  }

  # At the end of standard support EKS upgrades the control plane. The alternative is
  # extended support, at six times the price.
  upgrade_policy {
    support_type = "STANDARD"
  }

  # Only access entries grant access.
  access_config {
    authentication_mode                         = "API"
    bootstrap_cluster_creator_admin_permissions = false
  }

  vpc_config {
    subnet_ids              = var.subnet_ids
    endpoint_private_access = true
    endpoint_public_access  = length(var.api_cidrs) > 0
    public_access_cidrs     = length(var.api_cidrs) > 0 ? var.api_cidrs : null
  }

  encryption_config {
    resources = ["secrets"]

    provider {
      key_arn = aws_kms_key.secrets.arn
    }
  }

  tags = { Name = var.name }

  # Without the log group EKS creates one that keeps logs forever. Without the policies
  # EKS cannot delete what it created.
  depends_on = [
    aws_cloudwatch_log_group.control_plane,
    aws_iam_role_policy.secrets,
    aws_iam_role_policy_attachment.control_plane,
    aws_iam_role_policy_attachment.nodes,
  ]
}

resource "aws_cloudwatch_log_group" "control_plane" {
  #checkov:skip=CKV_AWS_158:encrypted with the key of CloudWatch Logs; the audit log contains no secret values
  name              = "/aws/eks/${var.name}/cluster"
  retention_in_days = var.log_retention_days
}

# The autoscaler of the chart needs it. EKS recommends a version for each Kubernetes version.
resource "aws_eks_addon" "metrics_server" {
  cluster_name                = aws_eks_cluster.control_plane.name
  addon_name                  = "metrics-server"
  addon_version               = data.aws_eks_addon_version.metrics_server.version
  resolve_conflicts_on_update = "OVERWRITE"

  tags = { Name = "${var.name}-metrics-server" }
}

data "aws_eks_addon_version" "metrics_server" {
  addon_name         = "metrics-server"
  kubernetes_version = var.kubernetes_version
}
