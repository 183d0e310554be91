locals {
  managed_policies = "arn:${data.aws_partition.current.partition}:iam::aws:policy"
  access_policies  = "arn:${data.aws_partition.current.partition}:eks::aws:cluster-access-policy"
}

# https://docs.aws.amazon.com/eks/latest/userguide/auto-cluster-iam-role.html
resource "aws_iam_role" "control_plane" {
  name        = "${var.name}-cluster-${data.aws_region.current.region}"
  description = "Control plane of the EKS cluster ${var.name}"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "eks.amazonaws.com" }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
    }]
  })
}

resource "aws_iam_role_policy_attachment" "control_plane" {
  for_each = toset([
    "AmazonEKSBlockStoragePolicy",
    "AmazonEKSClusterPolicy",
    "AmazonEKSComputePolicy",
    "AmazonEKSLoadBalancingPolicy",
    "AmazonEKSNetworkingPolicy",
  ])

  role       = aws_iam_role.control_plane.name
  policy_arn = "${local.managed_policies}/${each.key}"
}

# https://docs.aws.amazon.com/eks/latest/userguide/auto-create-node-role.html
resource "aws_iam_role" "nodes" {
  name        = "${var.name}-nodes-${data.aws_region.current.region}"
  description = "Nodes of the EKS cluster ${var.name}"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })
}

resource "aws_iam_role_policy_attachment" "nodes" {
  for_each = toset(["AmazonEC2ContainerRegistryPullOnly", "AmazonEKSWorkerNodeMinimalPolicy"])

  role       = aws_iam_role.nodes.name
  policy_arn = "${local.managed_policies}/${each.key}"
}

# Envelope encryption of the Kubernetes secrets.
resource "aws_kms_key" "secrets" {
  description             = "Kubernetes secrets of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  # The policies of IAM apply to the key, as to other resources of the account.
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Account"
      Effect    = "Allow"
      Principal = { AWS = "arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root" }
      Action    = "kms:*"
      Resource  = "*"
    }]
  })

  tags = { Name = "${var.name}-secrets" }
}

resource "aws_iam_role_policy" "secrets" {
  name = "secrets"
  role = aws_iam_role.control_plane.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:ListGrants"]
      Resource = aws_kms_key.secrets.arn
    }]
  })
}

# EKS adds the entries of the nodes.
resource "aws_eks_access_entry" "people" {
  for_each = setunion(var.admin_arns, keys(var.namespace_access))

  cluster_name  = aws_eks_cluster.control_plane.name
  principal_arn = each.key

  tags = { Name = var.name }
}

resource "aws_eks_access_policy_association" "admin" {
  for_each = var.admin_arns

  cluster_name  = aws_eks_cluster.control_plane.name
  principal_arn = aws_eks_access_entry.people[each.key].principal_arn
  policy_arn    = "${local.access_policies}/AmazonEKSClusterAdminPolicy"

  access_scope {
    type = "cluster"
  }
}

resource "aws_eks_access_policy_association" "namespace" {
  for_each = var.namespace_access

  cluster_name  = aws_eks_cluster.control_plane.name
  principal_arn = aws_eks_access_entry.people[each.key].principal_arn
  policy_arn    = "${local.access_policies}/${each.value}"

  access_scope {
    type       = "namespace"
    namespaces = [var.namespace]
  }
}
